"""What every format promises, on a source that its own library wrote."""

import pytest
import torch
from format_examples import EXAMPLES, tensors

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError, MissingDataError, UnknownNameError, WeightgenError
from weightgen.formats import discover, format_of, formats, read

FORMAT_OF = {"own": "safetensors", "legacy": "torch", "packed": "npz"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_source_is_known_by_its_content_and_read(name, tmp_path):
    path = EXAMPLES[name](tmp_path)
    expected = FORMAT_OF.get(name, name)
    assert format_of(path) == expected
    if path.is_file() and name != "sharded":
        renamed = path.rename(path.with_name("biped.nothing"))
        assert format_of(renamed) == expected
        path = renamed
    for network in read(path):
        checkpoint = network.checkpoint
        state = checkpoint.state_dict()
        assert {each: tuple(one.shape) for each, one in state.items()} == {
            each: shape for each, (_, shape) in checkpoint.shapes.items()
        }
        assert all(str(one.dtype) == f"torch.{checkpoint.shapes[each][0]}" for each, one in state.items())
        assert checkpoint.card.made_with.get("format", "own") in (expected, "own")
        assert checkpoint.id == read(path)[0].checkpoint.id


def test_every_format_has_an_example():
    assert set(formats()) == {FORMAT_OF.get(name, name) for name in EXAMPLES}


@pytest.mark.parametrize(
    "name", ["safetensors", "sharded", "torch", "legacy", "stable-baselines3", "peft", "npz", "packed", "onnx"]
)
def test_values_and_names_are_those_that_were_saved(name, tmp_path):
    (network,) = read(EXAMPLES[name](tmp_path))
    state = network.checkpoint.state_dict()
    assert set(state) == set(tensors()) and all(torch.equal(state[each], one) for each, one in tensors().items())
    assert not network.checkpoint.architecture.known
    assert network.checkpoint.parameters == 15


def test_the_same_tensors_are_the_same_network_whatever_the_format(tmp_path):
    ids = set()
    for name in ("safetensors", "sharded", "torch", "legacy", "npz", "onnx"):
        (tmp_path / name).mkdir()
        ids.add(read(EXAMPLES[name](tmp_path / name))[0].checkpoint.id)
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("name", "settings", "metrics"),
    [
        ("safetensors", {"author": "somebody"}, {}),
        ("sharded", {"total_size": 60}, {}),
        ("torch", {"epoch": 3}, {"best_acc": 0.5}),
        ("legacy", {}, {"loss": 0.25}),
        (
            "stable-baselines3",
            {"gamma": 0.99, "learning_rate": 7e-4, "learning_rate_schedule": "linear", "algorithm": "a2c"},
            {"mean_return": 5.0, "return_deviation": 0.0},
        ),
        ("huggingface", {"model_type": "bert", "hidden_size": 8, "library": "transformers"}, {}),
        ("timm", {"architecture": "test_resnet", "num_classes": 5}, {}),
        ("peft", {"r": 4, "peft_type": "LORA", "target_modules": "q, v"}, {}),
        ("npz", {"author": "somebody"}, {"accuracy": 0.75}),
        ("estool", {}, {"mean_return": 123.5}),
        ("onnx", {"producer": "nobody", "graph": "small"}, {}),
    ],
)
def test_what_is_known_is_kept(name, settings, metrics, tmp_path):
    card = read(EXAMPLES[name](tmp_path))[0].checkpoint.card
    assert settings.items() <= dict(card.hyperparameters).items()
    found = {metric.name: metric.value for metric in card.metrics}
    assert metrics.items() <= found.items()


def test_architectures_that_are_known_are_built(tmp_path):
    for name, recipe in (
        ("own", "weightgen/mlp?hidden=2"),
        ("nnet", "weightgen/mlp?classes=1&hidden=3&input=2,1,1"),
        ("estool", "weightgen/mlp?activation=tanh&classes=4&hidden=40,40&input=24,1,1"),
        ("timm", "timm/test_resnet?num_classes=5"),
        (
            "huggingface",
            "transformers/BertModel?hidden_size=8&intermediate_size=8&max_position_embeddings=8"
            "&num_attention_heads=2&num_hidden_layers=1&vocab_size=20",
        ),
    ):
        checkpoint = read(EXAMPLES[name](tmp_path))[0].checkpoint
        assert str(checkpoint.architecture) == recipe
        checkpoint.build()
    network = read(tmp_path / "ACASXU_run2a_3_5_batch_2000.nnet")[0].checkpoint.build()
    hidden = torch.tensor([1.0 + 4 + 0.1, 3 + 8 + 0.2, 5 + 12 + 0.3])
    expected = (hidden * torch.tensor([7.0, 8.0, 9.0])).sum() + 0.4
    assert torch.allclose(network(torch.tensor([[1.0, 2.0]])), expected)


def test_an_adapter_names_its_base(tmp_path):
    card = read(EXAMPLES["peft"](tmp_path))[0].checkpoint.card
    assert card.parents == ("somebody/base",) and card.tags == ("adapter",)


def test_of_an_agent_the_best_model_has_the_best_return(tmp_path):
    path = EXAMPLES["stable-baselines3"](tmp_path)
    card = read(path.rename(path.with_name("best_model.zip")))[0].checkpoint.card
    assert card.task == "Pole-v1" and card.metric("mean_return") == 10
    assert card.hyperparameters["evaluated_at_timestep"] == 20


def test_what_is_no_network_is_passed_over_with_its_reason(tmp_path):
    EXAMPLES["stable-baselines3"](tmp_path)
    EXAMPLES["sharded"](tmp_path)
    EXAMPLES["huggingface"](tmp_path)
    (tmp_path / "README.md").write_text("# Hello\n")
    (tmp_path / "empty.pt").touch()
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "history.json").write_text("[[1, 2], [3, 4], [5, 6]]")
    found = {source.path.name: source for source in discover(tmp_path)}
    assert {name: source.format for name, source in found.items() if source.format} == {
        "Pole-v1.zip": "stable-baselines3", "model.safetensors.index.json": "sharded", "bert": "huggingface",
    }  # fmt: skip
    assert found["Pole-v1.zip"].name == "a2c/Pole-v1_1/Pole-v1"
    reasons = {name: source.reason for name, source in found.items() if not source.format}
    assert reasons["model-one.safetensors"] == "a shard of another file"
    assert reasons["empty.pt"] == "empty" and reasons[".hidden"] == "hidden"
    assert reasons["dangling"] == "neither a file nor a folder"
    for name in ("README.md", "history.json"):
        assert reasons[name] == "of no format that is read"
    for name in ("evaluations.npz", "config.yml"):
        assert reasons[name] == "what is known of the networks beside it"


def test_a_path_that_is_not_there_or_not_read_is_named(tmp_path):
    for call in (read, lambda path: list(discover(path))):
        with pytest.raises(MissingDataError, match="nowhere"):
            call(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CorruptFileError, match="no format that is read.*safetensors"):
        read(tmp_path / "text")
    with pytest.raises(UnknownNameError, match="resnet18"):
        read("timm/resnet81")


def test_names_that_are_not_utf8(tmp_path):
    import os

    path = EXAMPLES["safetensors"](tmp_path)
    os.rename(path, os.fsencode(tmp_path) + b"/\xff.safetensors")
    (source,) = discover(tmp_path)
    assert source.format == "safetensors" and source.name == "?"


def test_models_of_transformers_are_known(tmp_path):
    from transformers import CLIPConfig, CLIPModel, GPT2Config, GPT2LMHeadModel

    text = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "vocab_size": 20,
    }
    vision = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "image_size": 8,
    }
    models = {
        # The output layer of GPT-2 is tied to its embedding, and only one of the two is in the file.
        "gpt2": GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, n_positions=8)),
        "clip": CLIPModel(CLIPConfig(text_config=text, vision_config={**vision, "patch_size": 4}, projection_dim=4)),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        checkpoint = read(tmp_path / name)[0].checkpoint
        assert checkpoint.architecture.family == f"transformers/{type(model).__name__}"
        assert checkpoint.architecture == Architecture.parse(str(checkpoint.architecture))
        built = checkpoint.build()
        assert all(torch.equal(one, built.state_dict()[each]) for each, one in model.state_dict().items())
        checkpoint.save(tmp_path / f"{name}.safetensors")
        assert Checkpoint.load(tmp_path / f"{name}.safetensors").id == checkpoint.id


def test_pipelines_of_diffusers_are_folders_of_models(tmp_path):
    diffusers = pytest.importorskip(
        "diffusers", reason="diffusers is not installed: pip install 'weightgen[diffusion]'"
    )
    unet = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    (source,) = [one for one in discover(tmp_path / "pipeline") if one.format]
    assert (source.format, source.name) == ("huggingface", "unet")
    checkpoint = read(source.path)[0].checkpoint
    assert checkpoint.architecture.family == "diffusers/UNet2DModel"
    assert checkpoint.card.hyperparameters["pipeline"] == "DDPMPipeline"
    state = Architecture.parse(str(checkpoint.architecture)).build().state_dict()
    assert {name: tuple(one.shape) for name, one in state.items()} == {
        name: shape for name, (_, shape) in checkpoint.shapes.items()
    }


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        ("transformers/BertModle", "BertModel"),
        ("transformers/os", "unknown transformers model"),
        ("transformers/BertModel?_name_or_path=x", "no files or downloads"),
        ("transformers/BertModel?num_hidden_layers=100000", "beyond all bounds"),
        ("transformers/BertModel?hidden_size=-3", "cannot build"),
        ("transformers/TimmWrapperModel", "fetches another one"),
    ],
)
def test_recipes_of_libraries_that_are_refused(recipe, text):
    with pytest.raises(WeightgenError, match=text):
        Architecture.parse(recipe).build()
