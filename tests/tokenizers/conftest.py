import pytest

from weightgen.architecture import Architecture
from weightgen.tasks import get_task
from weightgen.tokenizers import BehaviouralTokenizer, Cell
from weightgen.tokenizers.model import CodecConfig
from weightgen.tokenizers.training import TokenizerTraining, train_tokenizer
from weightgen.training.loop import LoopConfig
from weightgen.training.population import Run, Schedule, train_population


@pytest.fixture(scope="session")
def cell() -> Cell:
    """Eight networks that really read digits."""
    architecture = Architecture.parse("weightgen/mlp?hidden=8")
    runs = [Run(seed, 0.02, 0.0) for seed in range(8)]
    tensors = train_population(architecture, get_task("digits"), runs, Schedule(200, 32))
    return Cell("digits", architecture, tensors)


@pytest.fixture(scope="session")
def codec() -> CodecConfig:
    return CodecConfig(chunk=20, code_width=8, levels=2, codebook=16, hidden=16)


@pytest.fixture(scope="session")
def tokenizer(cell, codec) -> BehaviouralTokenizer:
    """Trained for a few steps, enough for codes that differ."""
    return train_tokenizer([cell], codec, TokenizerTraining(LoopConfig(3, warmup=1), networks=8, images=8))
