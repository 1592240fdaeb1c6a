"""A world at pico size: a zoo, a tokenizer and a generator that were really trained, side by side as on the shelves."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from weightgen.generators.hypernetwork_recipes import make_hypernetwork
from weightgen.generators.igpg import IGPG, PriorConfig, Sampling
from weightgen.generators.igpg_training import IGPGTraining, train_igpg
from weightgen.generators.neumeta_recipes import make_neumeta
from weightgen.instructions.encoder import InstructionEncoder, InstructionEncoderConfig
from weightgen.instructions.templates import sentences
from weightgen.tokenizers import BehaviouralTokenizer, Cell
from weightgen.tokenizers.model import CodecConfig
from weightgen.tokenizers.training import TokenizerTraining, train_tokenizer
from weightgen.training.loop import LoopConfig
from weightgen.zoo import Zoo
from weightgen.zoo.cells import zoo_cells
from weightgen.zoo.recipe import train_recipe

POPULATION = """
[[population]]
task = "digits"
architecture = "{architecture}"
networks = 6
steps = 150
batch = 32
learning_rate = [1e-2, 2e-2]
split = [0.66, 0.17, 0.17]
"""
HYPERNETWORK = """
task = "digits"
architecture = "{architecture}"
steps = 60
learning_rate = 1e-2
hidden = [8, 32]

[condition.rotation]
low = 0
high = 180
"""
MLP, CNN = "weightgen/mlp?hidden=8", "weightgen/cnn?channels=4"


@dataclass(frozen=True)
class Pico:
    """Where the pico world stands, and its parts in memory.

    Args:
        root: holds `zoo/pico`, `tokenizers/pico` and `checkpoints/pico`.
    """

    root: Path
    zoo: Zoo
    cells: list[Cell]
    tokenizer: BehaviouralTokenizer
    igpg: IGPG

    @property
    def generator(self) -> str:
        """The generator's folder, as `--generator` takes it."""
        return str(self.root / "checkpoints/pico")

    def hypernetwork(self, architecture: str) -> str:
        """The folder of a hypernetwork of rotated digits for an architecture, made when it is first asked for."""
        out = self.root / f"hypernetworks/{'mlp' if 'mlp' in architecture else 'cnn'}"
        if not out.exists():
            recipe = self.root / f"{out.name}.toml"
            recipe.write_text(HYPERNETWORK.format(architecture=architecture))
            make_hypernetwork(recipe, out)
        return str(out)

    def network(self, architecture: str) -> Path:
        """The file of a trained network for digits."""
        path = self.root / f"{'mlp' if 'mlp' in architecture else 'cnn'}.safetensors"
        if not path.exists():
            next(row for row in self.zoo.query("task = 'digits'") if row.architecture == architecture).load().save(path)
        return path

    def neumeta(self, architecture: str) -> str:
        """The folder of a NeuMeta generator for an architecture, made when it is first asked for."""
        path = self.network(architecture)
        out = self.root / f"neumeta/{path.stem}"
        if not out.exists():
            make_neumeta(path, "digits", out, steps=60, hidden=8, widths=(0.5, 1.0))
        return str(out)

    def files(self, kind: str) -> dict[str, bytes]:
        """The three files of `tokenizers` or `checkpoints`, name → content."""
        return {path.name: path.read_bytes() for path in (self.root / kind / "pico").iterdir()}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked `gpu` runs where there is one."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="session")
def pico(tmp_path_factory) -> Pico:
    root = tmp_path_factory.mktemp("pico")
    recipe = root / "pico.toml"
    recipe.write_text('name = "pico"\n' + "".join(POPULATION.format(architecture=one) for one in (MLP, CNN)))
    zoo = train_recipe(recipe, root / "zoo/pico")
    cells = zoo_cells(zoo)

    codec = CodecConfig(chunk=20, code_width=8, levels=2, codebook=16, hidden=16)
    training = TokenizerTraining(
        LoopConfig(10, warmup=1), networks=4, images=16, neighbours=2, mutation=0.0, least_images=0
    )
    tokenizer = train_tokenizer(cells, codec, training)
    tokenizer.provenance = {"id": "pico-tokenizer", "zoo": {"name": "pico", "digest": zoo.digest}}
    tokenizer.save_pretrained(root / "tokenizers/pico", "# A pico tokenizer\n")

    encoder = InstructionEncoder(InstructionEncoderConfig(buckets=256, width=16, dimension=16))
    encoder.fit([*sentences("digits", 60, 0), *sentences("mnist", 60, 0)], epochs=1)
    igpg = train_igpg(
        cells, tokenizer, PriorConfig(width=32, layers=1, heads=2), IGPGTraining(LoopConfig(60, 1e-2, 5), networks=8),
        zoo={"name": "pico", "digest": zoo.digest}, encoder=encoder, sampling=Sampling(top_p=0.9),
    )  # fmt: skip
    igpg.save_pretrained(root / "checkpoints/pico", "# A pico generator\n")
    return Pico(root, zoo, cells, tokenizer, igpg)
