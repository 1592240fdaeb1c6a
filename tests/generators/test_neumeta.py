from pathlib import Path

import numpy
import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, CorruptFileError, MissingDataError, OutputError, WeightgenError
from weightgen.generators.implicit import ImplicitConfig
from weightgen.generators.neumeta import NeuMeta, Statistics, function_of
from weightgen.generators.neumeta_recipes import fit, make_neumeta
from weightgen.generators.neumeta_training import NeuMetaTraining, measure_statistics, statistic_names
from weightgen.instructions import Request
from weightgen.tasks import evaluate, get_task
from weightgen.training.loop import LoopConfig
from weightgen.training.recalibration import recalibrate

CNN, RESNET = "weightgen/cnn?channels=4", "weightgen/resnet?blocks=1,1&input=1,8,8&width=4"


def accuracy(checkpoint: Checkpoint) -> float:
    return evaluate(checkpoint.build(), get_task("digits"))["metrics"]["accuracy"]


@pytest.fixture(scope="module")
def trained() -> NeuMeta:
    """A residual network with norms, trained at all widths from a random start."""
    torch.manual_seed(0)
    architecture = Architecture.parse(RESNET)
    start = Checkpoint(architecture, architecture.build().state_dict())
    training = NeuMetaTraining(LoopConfig(150, 1e-2, warmup=10, save_every=50), batch=32)
    return fit(start, get_task("digits"), ImplicitConfig(hidden=8), training)


def test_one_function_writes_good_networks_at_every_width(trained):
    found = {width: accuracy(trained.network(width)) for width in (0.5, 0.75, 1.0)}
    assert min(found.values()) > 0.4, found  # chance is 0.1
    networks = [trained.network(width) for width in (0.5, 0.6, 1.0)]
    assert [network.parameters for network in networks] == sorted({network.parameters for network in networks})


def test_norms_need_no_data(trained):
    """Statistics that come with the network are nearly those that its own training images give."""
    network = trained.network(0.75)
    module = network.build()
    recalibrate(module, get_task("digits").train()[0][:500])
    measured = evaluate(module, get_task("digits"))["metrics"]["accuracy"]
    assert accuracy(network) > measured - 0.1


def test_statistics_lie_between_those_of_neighbouring_sizes():
    kept = Statistics(torch.tensor([0.5, 1.0], dtype=torch.float64), torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    assert kept.at(0.75).tolist() == [2, 4]
    assert kept.at(0.1).tolist() == [1, 2]
    assert kept.at(2.0).tolist() == [3, 6]
    assert Statistics(torch.ones(1), torch.ones(1, 2)).at(0.3).tolist() == [1, 1]


def test_a_unit_without_statistics_has_those_of_the_next_size(trained):
    function, sizes = trained.function, [trained.sizes(0.5), trained.function.full]

    def network(one):
        return trained.resized(one).build()

    values = measure_statistics(function, network, sizes, get_task("digits").train()[0][:64])
    assert values is not None and values.isfinite().all()
    first = function.graph.shapes[statistic_names(function)[0]][0]
    half = sizes[0][0]
    assert torch.equal(values[0, half:first], values[1, half:first])
    assert not torch.equal(values[0, :half], values[1, :half])


def test_what_is_saved_is_what_was_trained(trained, tmp_path):
    trained.save_pretrained(tmp_path / "one", "# One\n")
    again = NeuMeta.from_pretrained(tmp_path / "one")
    for width in (0.3, 0.5, 0.8, 1.0, 1.7):
        assert again.network(width).id == trained.network(width).id
    (tmp_path / "one/config.json").write_text("{}")
    with pytest.raises(CorruptFileError):
        NeuMeta.from_pretrained(tmp_path / "one")


def test_sizes_are_found_again(trained):
    for width in (0.3, 0.5, 1.0, 1.5):
        assert trained.sizes_of(trained.network(width).architecture) == trained.sizes(width)
    uneven = tuple(size - (number % 2) for number, size in enumerate(trained.function.full))
    assert trained.sizes_of(trained.network(sizes=uneven).architecture) == uneven
    for other in ("weightgen/resnet?blocks=2,1&input=1,8,8&width=4", "weightgen/mlp"):
        with pytest.raises(ArchitectureError, match="no size of the one"):
            trained.sizes_of(Architecture.parse(other))


def test_draws(trained):
    request = Request("", "digits", str(trained.resized(trained.sizes(0.75))))
    one, other = trained.sample(request, 2, seed=1)
    assert one.id != other.id and [one.id, other.id] == [network.id for network in trained.sample(request, 2, seed=1)]
    mean = trained.network(0.75, seed=5, samples=64)
    middle = trained.network(0.75)
    far, near = (
        sum((found.tensor(name) - middle.tensor(name)).square().sum().item() for name in trained.function.learned)
        for found in (one, mean)
    )
    assert near < far
    with pytest.raises(WeightgenError, match="another task; got mnist; expected digits"):
        trained.sample(Request("", "mnist"))


def test_widths_that_cannot_be(trained):
    for width in (0.0, -1.0, float("nan")):
        with pytest.raises(WeightgenError, match="a width must be above 0"):
            trained.network(width)


def test_a_killed_training_goes_on(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture.parse(CNN)
    start = Checkpoint(architecture, architecture.build().state_dict())
    training = NeuMetaTraining(LoopConfig(30, 1e-2, warmup=3, save_every=10), scatter=0.3, distillation=0.3)

    def run(state=None, progress=None):
        return fit(start, get_task("digits"), ImplicitConfig(hidden=8), training, state=state, progress=progress)

    def killed(done: int, total: int, text: str) -> None:
        assert "accuracy" in text
        if done == 17:
            raise KeyboardInterrupt

    whole = run().network(0.5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", killed)
    assert run(tmp_path / "state").network(0.5).id == whole.id
    assert not (tmp_path / "state").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path):
    torch.manual_seed(0)
    architecture = Architecture.parse(CNN)
    start = Checkpoint(architecture, architecture.build().state_dict())
    training = NeuMetaTraining(LoopConfig(40, 1e30, warmup=20, save_every=1), noise=False)
    with pytest.raises(WeightgenError, match="neumeta diverged.*lower the rate"):
        fit(start, get_task("digits"), ImplicitConfig(hidden=8), training, state=tmp_path / "state")
    assert (tmp_path / "state").exists()


def test_scattered_places_keep_their_core():
    architecture = Architecture.parse("weightgen/mlp?hidden=16")
    function = function_of(architecture, architecture.build().state_dict(), ImplicitConfig("nested", 0))
    random = numpy.random.RandomState(0)
    seen = [function.scattered((8,), (4,), random)[0] for _ in range(20)]
    assert all(units[:4].tolist() == [0, 1, 2, 3] and len(set(units)) == 8 and units.max() < 16 for units in seen)
    assert len({tuple(units) for units in seen}) > 10
    assert function.scattered((16,), (4,), random) == {}


def test_the_command_writes_an_artefact(pico, tmp_path):
    folder = Path(pico.neumeta(CNN))
    card = (folder / "README.md").read_text()
    assert "weightgen train neumeta" in card and "| 0.50 |" in card
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    with pytest.raises(OutputError, match="there is one already.*--force"):
        make_neumeta(pico.network(CNN), "digits", folder)
    with pytest.raises(MissingDataError):
        make_neumeta(tmp_path / "none.safetensors", "digits", tmp_path / "out")
    colours = Architecture.parse("weightgen/cnn?channels=4&input=3,8,8")
    Checkpoint(colours, colours.build().state_dict()).save(tmp_path / "colours.safetensors")
    with pytest.raises(ArchitectureError, match="does not take the task's images"):
        make_neumeta(tmp_path / "colours.safetensors", "digits", tmp_path / "out")
    with pytest.raises(WeightgenError, match="impossible widths"):
        make_neumeta(pico.network(CNN), "digits", tmp_path / "out", widths=(1.0, 0.5))


def test_a_task_with_other_classes_is_refused(pico, tmp_path):
    with pytest.raises(ArchitectureError, match="as many outputs.*got 10; expected 2"):
        make_neumeta(pico.network(CNN), "digits/3v8", tmp_path / "out")
