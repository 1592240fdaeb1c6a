"""Models of timm by name: what timm keeps on this machine is read, and without a network the rest is a named error."""

import socket
import time

import pytest
import timm
import torch
from safetensors.torch import save_file

from weightgen.errors import MissingDataError, UnknownNameError
from weightgen.formats import discover, read
from weightgen.zoo import Zoo

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of Hugging Face, and no network."""
    from huggingface_hub import constants

    def unreachable(*arguments, **options):
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    # The library tries again a few times and waits longer each time.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fetched(cache) -> dict[str, torch.Tensor]:
    """What timm would have fetched, with random weights, where it looks for it."""
    folder = cache / f"models--timm--{NAME}"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots" / "0").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0")
    state = timm.create_model(NAME, pretrained=False).state_dict()
    save_file(state, folder / "snapshots" / "0" / "model.safetensors")
    return state


def test_a_model_that_was_fetched_is_read_by_its_name(cache, tmp_path):
    state = fetched(cache)
    (network,) = read(f"timm/{NAME}")
    checkpoint = network.checkpoint
    assert str(checkpoint.architecture) == "timm/test_resnet" and checkpoint.card.made_with["model"] == NAME
    assert all(torch.equal(checkpoint.tensor(name), one) for name, one in state.items())
    zoo = Zoo.create(tmp_path / "zoo")
    assert len(zoo.ingest(f"timm/{NAME}").added) == 1
    assert zoo.query(f"format = 'timm' and pretrained = '{NAME}'").count() == 1
    assert (zoo.row(f"timm/{NAME}").load().build()(torch.zeros(1, 3, 64, 64))).shape == (1, 1000)
    assert zoo.ingest(f"timm/{NAME}").done == 1


def test_without_a_network_the_error_says_what_to_do(cache, tmp_path):
    with pytest.raises(MissingDataError, match=f"'{NAME}' cannot be fetched; .*; fetch its folder on a machine with"):
        read(f"timm/{NAME}")
    zoo = Zoo.create(tmp_path / "zoo")
    report = zoo.ingest(f"timm/{NAME}")
    ((path, reason),) = report.failed.items()
    assert path == f"timm/{NAME}" and "cannot be fetched" in reason and len(zoo) == 0
    fetched(cache)
    assert len(zoo.ingest(f"timm/{NAME}").added) == 1


def test_a_name_that_timm_does_not_know():
    (source,) = discover("timm/test_resnet.r160_in2k")
    assert source.format == "timm"
    with pytest.raises(UnknownNameError, match="r160_in1k"):
        read("timm/test_resnet.r160_in2k")
    with pytest.raises(UnknownNameError, match="test_resnet"):
        read("timm/test_resent")
