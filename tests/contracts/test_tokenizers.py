"""What every form of WeightTokenizer promises."""

import pytest
import torch

from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError
from weightgen.tokenizers import GeneralConfig, QuantiserConfig, WeightTokenizer, WeightTokens, tokenizers
from weightgen.tokenizers.fitting import Fitting, Source, fit_general

FITTING = Fitting(pool=2_048, of_tensor=1_024, steps=2, batch=512, first=1_024, refinements=1)


@pytest.fixture(scope="module")
def folders(pico, tmp_path_factory):
    """Every registered form must have a pico twin here, saved."""
    general = tmp_path_factory.mktemp("general")
    sources = [Source(row.name, row.load) for row in pico.zoo.query("split = 'train'")]
    fit_general(sources, GeneralConfig(QuantiserConfig("residual", 4, 2, 32)), FITTING).save_pretrained(general)
    return {"behavioural": pico.root / "tokenizers/pico", "general": general}


def test_every_form_is_in_the_table(folders):
    assert set(tokenizers) == set(folders)


@pytest.mark.parametrize("form", list(tokenizers))
def test_promises(pico, folders, form, tmp_path):
    tokenizer = WeightTokenizer.from_pretrained(folders[form])
    assert isinstance(tokenizer, tokenizers[form]) and isinstance(tokenizer, WeightTokenizer)
    network = pico.zoo.load("digits-cnn-4-s000")
    assert tokenizer.knows(network)
    torch.manual_seed(0)
    tokens = tokenizer.encode(network)
    torch.manual_seed(1)
    assert torch.equal(tokenizer.encode(network).codes, tokens.codes), "whatever the global random state"
    assert tokens.codes.dtype == torch.int64 and tokens.codes.dim() == 2

    tokens.save(tmp_path / "tokens.safetensors", network.card)
    read, card = WeightTokens.load(tmp_path / "tokens.safetensors")
    assert torch.equal(read.codes, tokens.codes) and card == network.card
    decoded = tokenizer.decode(read)
    after = Checkpoint(network.architecture, decoded)
    assert after.shapes == network.shapes and after.non_finite() == []
    after.build()

    measured = tokenizer.measure(network, tokens)
    assert {"tokens", "levels", "bits_per_weight", "snr_db"} <= set(measured)
    assert (measured["tokens"], measured["levels"]) == tuple(tokens.codes.shape)
    assert 0 < measured["bits_per_weight"] < 32

    tokenizer.save_pretrained(tmp_path / "again")
    saved = (tmp_path / "again/model.safetensors").read_bytes()
    assert saved == (folders[form] / "model.safetensors").read_bytes()


@pytest.mark.parametrize("form", list(tokenizers))
@pytest.mark.parametrize("code", [-1, 1 << 40])
def test_codes_outside_the_codebook_are_refused(pico, folders, form, code):
    tokenizer = WeightTokenizer.from_pretrained(folders[form])
    tokens = tokenizer.encode(pico.zoo.load("digits-cnn-4-s000"))
    codes = tokens.codes.clone()
    codes[3, 0] = code
    wrong = WeightTokens(codes, tokens.architecture, tokens.shapes, tokens.side, tokens.tokenizer)
    with pytest.raises(CorruptFileError):
        tokenizer.decode(wrong)
