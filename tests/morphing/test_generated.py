import pytest

from weightgen.checkpoint import Checkpoint
from weightgen.cli import main
from weightgen.errors import ArchitectureError
from weightgen.generators.neumeta import NeuMeta
from weightgen.morphing import morph

CNN = "weightgen/cnn?channels=4"


@pytest.fixture(scope="module")
def generator(pico) -> NeuMeta:
    return NeuMeta.from_pretrained(pico.neumeta(CNN))


def test_a_generator_writes_any_width_without_data(generator):
    made = morph(generator, width=0.5)
    assert made.method == "neumeta" and str(made.checkpoint.architecture) == "weightgen/cnn?channels=2"
    assert made.checkpoint.id == generator.network(0.5).id
    assert made.metrics == {} and made.notes == () and made.checkpoint.card.metrics == ()
    assert made.macs < made.before["macs"] and made.checkpoint.parameters < made.before["parameters"]


def test_with_a_task_both_networks_are_measured(generator):
    made = morph(generator, like="weightgen/cnn?channels=3", task="digits")
    assert 0 < made.metrics["accuracy"] <= 1 and 0 < made.before["metrics"]["accuracy"] <= 1
    assert made.checkpoint.card.metric("accuracy") == made.metrics["accuracy"]


def test_budgets_and_parts(generator):
    most = generator.network(0.75).parameters
    assert morph(generator, params=most).checkpoint.parameters <= most
    assert morph(generator, width={"conv1": 0.25}).checkpoint.architecture.option("channels") == (1,)


def test_what_was_not_trained_is_said(generator):
    assert any("narrower than any" in note for note in morph(generator, width=0.25).notes)
    assert any("units are repeated" in note for note in morph(generator, width=2.0).notes)


def test_only_the_size_can_be_chosen(generator):
    for options in ({"method": "prune"}, {"finetune_steps": 3}, {"repair": True}):
        with pytest.raises(ArchitectureError, match="ready to use"):
            morph(generator, width=0.5, **options)


def test_the_command_takes_a_folder(pico, generator, tmp_path, capsys):
    out = tmp_path / "half.safetensors"
    assert main(["morph", pico.neumeta(CNN), "--width", "0.5", "--out", str(out), "--json"]) == 0
    assert '"method": "neumeta"' in capsys.readouterr().out
    assert Checkpoint.load(out).id == generator.network(0.5).id
