"""Alignment: how fast, how exact, and what it is worth.

- speed: the starter zoo's CNN of 4,218 parameters, networks a second: `Aligner`, many at once, against the loop that
  is usually written (`loop`: one network at a time with numpy, its groups in a random order until nothing changes).
  Both get the same networks in canonical scale, in one run, the fastest of three; beside it the speed of `Aligner` with
  the search for these scales, which the loop is spared. Quality is the mean distance to the reference that is left.
- copies: a network with all units in a random order, rescaled and with other signs, aligned back to itself: the
  distance that is left over the network's norm. ResNet-20 has its trained weights if $WEIGHTGEN_DATA is set.
- barriers: pairs of independently trained networks of the starter zoo: mean accuracy on the test split of the two, and
  of the mean of their weights, as they are, aligned by weights and aligned by activations (2,000 train images).
- pairs: seconds for a pair of ResNet-20 and of ResNet-18, the tracing that is done once apart.

All on one thread, and times are those of the processor, which other work on the machine disturbs less. Writes
results/alignment.json. Run it as `scripts/benchmarks/alignment`, or with some of the names above for these alone.
"""

import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from scipy.optimize import linear_sum_assignment
from tested import tested
from torch import Tensor

from weightgen import Architecture, Checkpoint, Zoo
from weightgen.alignment import measured_alignment
from weightgen.structure import Aligner, AxisGroup
from weightgen.structure.alignment import flat
from weightgen.structure.tracing import trace_axes
from weightgen.tasks import evaluate, get_task
from weightgen.training.population import stack

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "scripts/benchmarks/results/alignment.json"
CNN = "weightgen/cnn?channels=8,16,16"
COPIES = 20
"""How often each of the zoo's fifty networks stands in the batch, each time in another order."""
LOOPED = 100
"""So many of them the loop gets; it has the same work for each."""
PAIRS = 5
REPEATS = 3
COPIED = ("mlp", "cnn", "lenet", "resnet_a", "resnet18", "vit", "bert", "gpt2", "llama")

networks = tested("structure/networks.py")


def loop(state: Mapping[str, numpy.ndarray], reference: Mapping[str, numpy.ndarray], groups: Sequence[AxisGroup], seed):
    """Weight matching as published: coordinate descent in a random order of the groups until nothing changes."""
    random = numpy.random.default_rng(seed)
    orders = [numpy.arange(group.size) for group in groups]

    def permuted(name: str, besides: int) -> numpy.ndarray:
        values = state[name]
        for number, group in enumerate(groups):
            for member in group.members:
                if member.tensor == name and number != besides:
                    index = (orders[number][:, None] * member.block + numpy.arange(member.block)).ravel()
                    values = numpy.take(values, index, axis=member.axis)
        return values

    def units(values: numpy.ndarray, axis: int, size: int) -> numpy.ndarray:
        return numpy.moveaxis(values, axis, 0).reshape(size, -1)

    changed = True
    while changed:
        changed = False
        for number in random.permutation(len(groups)):
            group = groups[number]
            similarity = numpy.zeros((group.size, group.size))
            for member in group.members:
                wanted = units(reference[member.tensor], member.axis, group.size)
                similarity += wanted @ units(permuted(member.tensor, number), member.axis, group.size).T
            before = similarity[numpy.arange(group.size), orders[number]].sum()
            order = linear_sum_assignment(similarity, maximize=True)[1]
            changed |= bool(similarity[numpy.arange(group.size), order].sum() > before + 1e-12)
            orders[number] = order
    return {name: permuted(name, -1) for name in state}


def cell(recipe: str, task: str) -> list[Checkpoint]:
    """The starter zoo's networks of one architecture and task."""
    rows = [row for row in Zoo.open(ROOT / "zoo/starter") if row.architecture == recipe and row.task == task]
    return [row.load() for row in rows]


def fastest(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor, the fewest of some runs, and the result."""
    seconds, result = [], None
    for _ in range(REPEATS):
        begin = time.process_time()
        result = function()
        seconds.append(time.process_time() - begin)
    return min(seconds), result


def speed() -> dict[str, Any]:
    zoo = stack([{name: t.float() for name, t in network.state_dict().items()} for network in cell(CNN, "digits")])
    groups = Architecture.parse(CNN).groups()
    reference = {name: tensor[0] for name, tensor in zoo.items()}
    copies = []
    for seed in range(COPIES):
        state = zoo
        for group, order in zip(groups, networks.random_orders(groups, seed), strict=True):
            state = networks.permuted(state, _shifted(group), order)
        copies.append(state)
    batch = {name: torch.cat([copy[name] for copy in copies]) for name in zoo}
    count = len(next(iter(batch.values())))
    aligner = Aligner(groups, reference=reference)
    whole, _ = fastest(lambda: aligner.align(batch))
    canonical = aligner.canonicalise(batch)
    ours, matched = fastest(lambda: aligner.match(canonical))
    spread = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:LOOPED]
    arrays = [{name: tensor[row].numpy() for name, tensor in canonical.items()} for row in spread.tolist()]
    target = {name: tensor[0].numpy() for name, tensor in aligner.reference.items()}
    theirs, looped = fastest(lambda: [loop(state, target, groups, seed) for seed, state in enumerate(arrays)])
    theirs_state = stack([{name: torch.from_numpy(value.copy()) for name, value in one.items()} for one in looped])
    goal = flat(aligner.reference)

    def left(state: Mapping[str, Tensor]) -> float:
        # The reference's own copies are no distance away for either.
        distances = (flat(state) - goal).norm(dim=1)
        return round(distances[distances > 1e-3].mean().item(), 4)

    return {
        "architecture": CNN, "parameters": Architecture.parse(CNN).parameters, "networks": count,
        "per_second": round(count / ours), "per_second_with_scales": round(count / whole),
        "loop_per_second": round(LOOPED / theirs, 1), "ratio": round(count / ours / (LOOPED / theirs), 1),
        "ratio_with_scales": round(count / whole / (LOOPED / theirs), 1),
        "distance": {
            "unaligned": left(canonical), "ours": left({name: t[spread] for name, t in matched.items()}),
            "loop": left(theirs_state),
        },
    }  # fmt: skip


def _shifted(group: AxisGroup) -> AxisGroup:
    """The group in tensors `[networks, …]`."""
    members = tuple(type(member)(member.tensor, member.axis + 1, member.block) for member in group.members)
    return AxisGroup(group.size, members)


def _batched(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t[None].float() if t.is_floating_point() else t[None] for name, t in state.items()}


def copy(name: str) -> dict[str, Any]:
    """A disguised copy of a network, aligned back to it."""
    torch.manual_seed(0)
    example = trained_resnet20() if name == "ResNet-20" else networks.NETWORKS[name]()
    graph = trace_axes(example.module, example.arguments, example.keywords, example.output)
    if name != "ResNet-20":
        networks.randomise(example.module)
    state = {key: tensor.clone() for key, tensor in example.module.state_dict().items()}
    aligner = Aligner(graph.groups, reference=state)
    disguised = _batched(networks.all_rescaled(networks.all_permuted(example, graph), graph.groups))
    aligned = aligner.align(disguised)
    size = flat(aligner.reference).norm()
    return {
        "groups": len(graph.groups),
        "groups_with_scales": sum(bool(group.scales) for group in graph.groups),
        "groups_with_signs": sum(bool(group.signs) for group in graph.groups),
        "distance_before": float(f"{((flat(disguised) - flat(aligner.reference)).norm() / size).item():.2e}"),
        "distance_after": float(f"{((flat(aligned) - flat(aligner.reference)).norm() / size).item():.1e}"),
        "output_change": float(f"{networks.change(example, {k: t[0] for k, t in aligned.items()}, torch.float32):.1e}"),
    }


def trained_resnet20() -> Any:
    module = Architecture.parse("weightgen/resnet").build()
    path = Path(os.environ.get("WEIGHTGEN_DATA", "")) / "resnet_cifar10/resnet20-12fca82f.th"
    if path.is_file():
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict({name.removeprefix("module."): tensor for name, tensor in saved.items()})
    return networks.Example(module, (torch.randn(1, 3, 32, 32),))


def barrier(recipe: str, task: str) -> dict[str, Any]:
    """Accuracies of pairs, in percent: of the networks, and of the mean of their weights in three orders."""
    zoo = cell(recipe, task)
    measured = get_task(task)
    columns: dict[str, list[float]] = {"networks": [], "raw": [], "weights": [], "activations": []}

    def accuracy(state: Mapping[str, Tensor]) -> float:
        return 100 * evaluate(Checkpoint(zoo[0].architecture, state).build(), measured)["metrics"]["accuracy"]

    for one, other in zip(zoo[0 : 2 * PAIRS : 2], zoo[1 : 2 * PAIRS : 2], strict=True):
        ends = [{name: t.float() for name, t in network.state_dict().items()} for network in (one, other)]
        aligned = {method: measured_alignment(other, one, given).checkpoint.state_dict()
                   for method, given in (("weights", None), ("activations", task))}  # fmt: skip
        columns["networks"].append(sum(map(accuracy, ends)) / 2)
        for method, state in (("raw", ends[1]), *aligned.items()):
            columns[method].append(accuracy({name: (t + state[name].float()) / 2 for name, t in ends[0].items()}))
    return {name: round(sum(values) / len(values), 2) for name, values in columns.items()}


def pair(recipe: str) -> dict[str, Any]:
    """Seconds for a pair of networks, with random weights."""
    torch.manual_seed(0)
    architecture = Architecture.parse(recipe)
    begin = time.process_time()
    groups = architecture.groups()
    traced = time.process_time() - begin
    one, other = (_batched(architecture.build().state_dict()) for _ in range(2))
    aligner = Aligner(groups, reference={name: tensor[0] for name, tensor in one.items()})
    seconds, aligned = fastest(lambda: aligner.align(other))
    canonical = aligner.canonicalise(other)
    return {
        "parameters": architecture.parameters, "groups": len(groups), "trace_seconds": round(traced, 2),
        "align_seconds": round(seconds, 3),
        "distance": [
            round((flat(state) - flat(aligner.reference)).norm().item(), 3) for state in (canonical, aligned)
        ],
    }  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    zoo = Zoo.open(ROOT / "zoo/starter")
    cells = sorted({(row.architecture, str(row.task)) for row in zoo})
    steps: dict[str, dict[str, Callable[[], Any]]] = {
        "speed": {CNN: speed},
        "pairs": {recipe: lambda recipe=recipe: pair(recipe) for recipe in ("weightgen/resnet", "timm/resnet18")},
        "copies": {name: lambda name=name: copy(name) for name in (*COPIED, "ResNet-20")},
        "barriers": {f"{task}: {recipe}": lambda r=recipe, t=task: barrier(r, t) for recipe, task in cells},
    }
    for kind in sys.argv[1:] or list(steps):
        found = {}
        for name, function in steps[kind].items():
            found[name] = function()
            figures = ", ".join(f"{key} {value}" for key, value in found[name].items())
            print(f"{kind:9} {name:50} {figures}", flush=True)
        # Read again, since parts may be measured side by side.
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        machine = {"processor": platform.machine(), "threads": 1, "torch": torch.__version__}
        result = {"command": "scripts/benchmarks/alignment", "machine": machine, **{
            key: found if key == kind else known[key] for key in steps if key == kind or key in known
        }}  # fmt: skip
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
