import pytest
import torch
from torch import nn

from weightgen.architecture import Architecture
from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, WeightgenError
from weightgen.generators.conditions import Category, Scalar, Vector
from weightgen.generators.hypernetwork import HypernetworkConfig, hypernetwork

CNN = "weightgen/cnn?channels=4,6"
FORMS = {
    "default": {},
    "low rank": {"rank": 2},
    "chunked": {"chunk": 64},
    "plain": {"input_encoding": False, "output_encoding": False},
    "published": {"initial": "published"},
}


def stirred(model, condition=1, *selection, **options):
    """A hypernetwork as training leaves it: every parameter moved."""
    torch.manual_seed(0)
    hyper = hypernetwork(model, condition, *selection, **options)
    with torch.no_grad():
        for parameter in [*hyper.body.parameters(), *hyper.head.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    return hyper


def normed():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(144, 3)
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_one_many_and_all_agree(form):
    hyper = stirred(CNN, Scalar(0, 90), **form).eval()
    images, angles = torch.randn(5, 1, 8, 8), torch.linspace(0, 90, 5)
    each, all_of_them = hyper(angles, images), hyper(angles, images, grid=True)
    assert each.shape == (5, 10) and all_of_them.shape == (5, 5, 10)
    for index, angle in enumerate(angles):
        alone = hyper(angle, images)
        assert torch.allclose(all_of_them[index], alone, atol=1e-5)
        assert torch.allclose(each[index], alone[index], atol=1e-5)
    assert (all_of_them[0] - all_of_them[-1]).abs().max() > 1e-3, "the condition matters"
    assert hyper(30.0, images, grid=True).shape == (1, 5, 10)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_part_learns(form):
    hyper = stirred(CNN, **form)
    hyper(torch.rand(3, 1), torch.randn(3, 1, 8, 8)).square().sum().backward()
    assert [name for name, one in hyper.named_parameters() if one.grad is None or not one.grad.any()] == []


def test_at_first_it_is_the_network_itself():
    torch.manual_seed(0)
    network = Architecture.parse(CNN).build()
    images = torch.randn(4, 1, 8, 8)
    hyper = hypernetwork(network, 2)
    for z in ([0.0, 0.0], [0.3, 1.0]):
        assert torch.equal(hyper(torch.tensor(z), images), network(images))
    assert set(hyper.base) == set(network.state_dict())
    assert {f"network.{name}" for name in hyper.base} <= set(hyper.state_dict())
    hyper.base["head.bias"].data.add_(1)
    assert not torch.equal(network.head.bias, hyper.base["head.bias"]), "the module given is copied"


def test_the_plain_form_shrinks_with_its_input():
    hyper = hypernetwork(CNN, 1, **FORMS["plain"])
    assert not any(tensor.any() for tensor in hyper.tensors(torch.zeros(1)).values())
    half, whole = (hyper.tensors(torch.tensor([z]))["head.weight"] for z in (0.5, 1.0))
    assert torch.allclose(2 * half, whole, rtol=1e-4)


def test_only_what_is_selected_is_written():
    hyper = stirred(CNN, 1, "conv*.weight")
    assert list(hyper.tensors(torch.rand(2, 1))) == ["conv1.weight", "conv2.weight"]
    hyper(torch.rand(1), torch.randn(2, 1, 8, 8)).sum().backward()
    assert hyper.network.head.weight.grad.any(), "the rest is trained as it is"


def test_several_conditions_by_name():
    hyper = stirred(CNN, {"angle": Scalar(0, 180), "ink": Category(("dark", "light")), "place": Vector(2)})
    images = torch.randn(3, 1, 8, 8)
    place = torch.rand(3, 2)
    several = hyper({"angle": [0.0, 90.0, 180.0], "ink": ["dark", "light", "dark"], "place": place}, images)
    one = hyper({"angle": 90.0, "ink": "light", "place": place[1]}, images[1:2])
    assert torch.allclose(several[1], one[0], atol=1e-5)


def test_weights_are_a_checkpoint_of_their_own(tmp_path):
    hyper = stirred(CNN, {"rotation": Scalar(0, 90)}, "*.weight").eval()
    network = hyper.weights({"rotation": 30.0})
    network.save(tmp_path / "one.safetensors")
    loaded = Checkpoint.load(tmp_path / "one.safetensors")
    images = torch.randn(4, 1, 8, 8)
    assert torch.allclose(loaded.build()(images), hyper({"rotation": 30.0}, images), atol=1e-6)
    assert loaded.card.made_with["condition"] == {"rotation": pytest.approx(30, abs=1e-4)}
    with pytest.raises(WeightgenError, match="one network; got 2 conditions"):
        hyper.weights([10.0, 20.0])
    with pytest.raises(WeightgenError, match="no recipe"):
        hypernetwork(normed(), 1).weights(0.5)


def test_it_begins_with_a_checkpoint(tmp_path):
    architecture = Architecture.parse(CNN)
    trained = Checkpoint(architecture, architecture.build().state_dict())
    trained.save(tmp_path / "trained.safetensors")
    hyper = hypernetwork(architecture.build(), 1, from_checkpoint=tmp_path / "trained.safetensors")
    assert hyper.weights(0.7).id == trained.id
    with pytest.raises(ArchitectureError, match=r"does not fit.*size mismatch"):
        hypernetwork("weightgen/cnn?channels=4,8", 1, from_checkpoint=trained)


def test_shared_parameters_are_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    hyper = stirred(Tied())
    table = hyper.tensors(torch.tensor([0.4]))["embed.weight"]
    tokens = torch.tensor([[0, 3], [1, 1]])
    assert torch.allclose(hyper(torch.tensor([0.4]), tokens), table[tokens] @ table.T, atol=1e-6)


def test_norms_keep_their_statistics():
    hyper, images = stirred(normed()), 3 + torch.randn(16, 1, 8, 8)
    norm = hyper.network[1]
    hyper(torch.tensor([0.2]), images)
    assert norm.num_batches_tracked == 1 and norm.running_mean.any()
    before = norm.running_mean.clone()
    conditions = torch.rand(3, 1)
    grid = hyper(conditions, images, grid=True)
    assert norm.num_batches_tracked == 2 and not torch.equal(norm.running_mean, before)
    outputs = [
        nn.functional.conv2d(images, weight, bias).mean((0, 2, 3))
        for weight, bias in zip(*(hyper.tensors(conditions)[name] for name in ("0.weight", "0.bias")), strict=True)
    ]
    assert torch.allclose(norm.running_mean, 0.9 * before + 0.1 * torch.stack(outputs).mean(0), atol=1e-4)
    grid.sum().backward()
    with pytest.raises(WeightgenError, match=r"batch norm cannot learn from one example.*in 1;.*grid=True"):
        hyper(torch.rand(16, 1), images)
    assert hyper.eval()(torch.rand(16, 1), images).shape == (16, 3)


def test_two_calls_before_a_backward():
    hyper, images = stirred(normed()), torch.randn(4, 1, 8, 8)
    first = hyper(torch.tensor([0.2]), images)
    hyper(torch.rand(2, 1), images, grid=True)
    first.sum().backward()


def test_an_exception_leaves_nothing_behind():
    hyper = stirred(CNN)
    before = {name: (id(tensor), tensor.clone()) for name, tensor in hyper.network.named_parameters()}
    for condition, error in ((torch.tensor([0.3]), RuntimeError), (torch.rand(2, 1), WeightgenError)):
        with pytest.raises(error, match="channels"):
            hyper(condition, torch.randn(2, 7, 8, 8))
    for name, tensor in hyper.network.named_parameters():
        assert id(tensor) == before[name][0] and torch.equal(tensor, before[name][1])
    assert type(hyper.network).__module__.startswith("torch"), "the class is not rewritten"


class Counting(nn.Module):
    """Keeps state in place, in a tensor that is no buffer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.total = torch.zeros(2)

    def forward(self, examples):
        answer = self.layer(examples)
        self.total += answer.sum(0).detach()
        return answer


class Looking(nn.Module):
    """Decides by a value."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, examples):
        answer = self.layer(examples)
        return answer if answer.sum().item() > 0 else -answer


@pytest.mark.parametrize("kind", [Counting, Looking])
def test_state_in_place_takes_one_condition_a_call(kind):
    hyper, examples = stirred(kind()), torch.randn(3, 4)
    for conditions, grid in ((torch.rand(3, 1), False), (torch.rand(2, 1), True)):
        with pytest.raises(
            WeightgenError, match=f"several conditions at once; in {kind.__name__}.*one condition a call"
        ):
            hyper(conditions, examples, grid=grid)
    hyper(torch.tensor([0.5]), examples).sum().backward()
    assert hyper.network.layer.weight.grad.any()


class Keeping(nn.Linear):
    """Keeps its last answer."""

    def forward(self, examples):
        self.last = super().forward(examples)
        return self.last


def test_what_the_network_keeps_is_never_of_a_vmap():
    hyper, examples = stirred(Keeping(4, 2)), torch.randn(3, 4)
    hyper(torch.rand(3, 1), examples)
    assert not hasattr(hyper.network, "last")
    kept = hyper(torch.tensor([0.5]), examples)
    hyper(torch.rand(2, 1), examples, grid=True)
    assert hyper.network.last is kept


def test_several_hypernetworks_at_once():
    several, images = [stirred(CNN, 1, hidden=(4,)) for _ in range(2)], torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        several[1].base["head.bias"].add_(1)
    weights, buffers = torch.func.stack_module_state(several)

    def one(weights, buffers):
        return torch.func.functional_call(several[0], (weights, buffers), (torch.tensor([0.3]), images))

    answers = torch.func.vmap(one)(weights, buffers)
    for hyper, answer in zip(several, answers, strict=True):
        assert torch.allclose(answer, hyper(torch.tensor([0.3]), images), atol=1e-5)


def test_recurrent_layers_use_what_is_written():
    hyper = stirred(nn.LSTM(3, 4, batch_first=True))
    sequence = torch.randn(2, 5, 3)
    low, high = (hyper(torch.tensor([z]), sequence)[0] for z in (0.1, 0.9))
    assert (low - high).abs().max() > 1e-3


def test_mixed_precision():
    hyper, images = stirred(CNN), torch.randn(4, 1, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        answer, grid = hyper(0.5, images), hyper(torch.tensor([[0.5], [0.6]]), images, grid=True)
    assert answer.dtype == torch.bfloat16
    assert torch.allclose(answer.float(), hyper(0.5, images), atol=0.05)
    assert torch.allclose(grid[0].float(), answer.float(), atol=0.05)
    (answer.float().sum() + grid.float().sum()).backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in hyper.parameters())
    assert stirred(normed().double())(0.5, torch.randn(2, 1, 8, 8).double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda hyper: hyper(1.5, torch.zeros(2, 1, 8, 8)), "out of its range.*expected 0 to 1"),
        (lambda hyper: hyper(torch.rand(3, 1), torch.zeros(2, 1, 8, 8)), r"one example for each.*expected \[3, …\]"),
        (lambda hyper: hyper(torch.rand(3, 1), "image"), "one example for each condition; got str|got.*str"),
        (lambda hyper: hypernetwork(3, 1), "not a network; got 3; expected a module"),
        (lambda hyper: HypernetworkConfig(rank=2, chunk=2), "chunked or of low rank"),
        (lambda hyper: HypernetworkConfig(rank=0), "rank is too small; got 0"),
        (lambda hyper: HypernetworkConfig(hidden=()), "needs a hidden layer"),
        (lambda hyper: HypernetworkConfig(initial="published", chunk=8), "those of a full head"),
    ],
)
def test_bad_use(call, text):
    with pytest.raises(WeightgenError, match=text):
        call(hypernetwork(CNN, 1))
