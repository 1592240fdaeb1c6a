"""One hypernetwork that gives the network for every weight penalty, against networks trained for each of eight.

The task is digits, from 200 of its images, so that the penalty matters: cross-entropy + λ/2 |weights|². After
"Self-Tuning Networks", https://arxiv.org/abs/1903.03088, which trains such a best response. Rates and the
hypernetwork's form are chosen by `--tune` on validation images, with seeds of their own; then all is trained anew with
other seeds and measured once on test images. Networks of one rate, and hypernetworks of several seeds, are trained at
once under vmap, each on batches of its own, as they would be one by one; the seconds are those of one alone. Writes
results/hypernetwork_regularisation.json and .png. Run it as `scripts/benchmarks/hypernetwork-regularisation`.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.architecture import Architecture
from weightgen.generators.conditions import Scalar
from weightgen.generators.hypernetwork import hypernetwork
from weightgen.storage import write_text
from weightgen.tasks import get_task

FOLDER = Path(__file__).resolve().parent / "results"
RECIPE = "weightgen/mlp?hidden=64"
PENALTIES = [10 ** (-4 + 3 * index / 7) for index in range(8)]
IMAGES, HELD_OUT, BATCH, STEPS = 200, 500, 64, 1000
RATES = (1e-3, 3e-3)
TUNING_SEEDS, SEEDS = range(100, 102), range(5)


@dataclass(frozen=True)
class Setting:
    """How the hypernetwork is trained: at `conditions` penalties a step, from a range `beyond` times as wide.

    θ₀ has a rate of its own: a step of Adam moves h by the head's rate times the sum of all |features|, which is many
    times as far.
    """

    rate: float
    head_rate: float
    beyond: float = 1.0
    steps: int = 450
    conditions: int = 4
    hidden: int = 16


GRID = [
    Setting(rate, head_rate, beyond)
    for rate, head_rate, beyond in itertools.product((3e-3, 1e-2), (5e-4, 1e-3, 2e-3), (1.25,))
]
TIMED = 100
"""Steps of which the seconds are measured."""


def penalty(tensors: Mapping[str, Tensor]) -> Tensor:
    """Half the sum of squares of all matrices, `[…]` over the leading axes of biases `[…, out]`."""
    matrices = [tensor for name, tensor in tensors.items() if name.endswith("weight")]
    return 0.5 * torch.stack([one.square().sum((-2, -1)) for one in matrices]).sum(0)


def optimise(groups: list[dict[str, Any]], steps: int, loss: Callable[[], Tensor], timed: int | None = None) -> float:
    """Adam with a cosine to 0; gives the processor seconds of all steps, from `timed` of them if so asked."""
    optimiser = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    begin, done = time.process_time(), min(steps, timed or steps)
    for _ in range(done):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()
    return (time.process_time() - begin) * steps / done


class Data:
    """200 images to train on, 500 to choose by, and all others to measure on once."""

    def __init__(self) -> None:
        task = get_task("digits")
        parts = (task.train(), task.validation(), task.test())
        images, labels = (torch.cat(one) for one in zip(*parts, strict=True))
        self.images, self.labels = images[:IMAGES], labels[:IMAGES]
        self.validation = images[IMAGES : IMAGES + HELD_OUT], labels[IMAGES : IMAGES + HELD_OUT]
        self.test = images[IMAGES + HELD_OUT :], labels[IMAGES + HELD_OUT :]

    def batches(self, generators: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """A batch of each generator, `[n, batch, …]`."""
        index = torch.stack([torch.randint(IMAGES, (BATCH,), generator=one) for one in generators])
        return self.images[index], self.labels[index]


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(-1) == labels).double().mean().item()


class Response(nn.Module):
    """A hypernetwork of the range of penalties, and its loss."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        low, high = math.log(PENALTIES[0]), math.log(PENALTIES[-1])
        margin = (high - low) * (setting.beyond - 1) / 2
        self.low, self.high = low - margin, high + margin
        space = Scalar(math.exp(self.low), math.exp(self.high), logarithmic=True)
        self.hyper = hypernetwork(RECIPE, space, hidden=(setting.hidden,))

    def forward(self, z: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of z `[conditions, 1]` on one batch."""
        tensors = self.hyper.tensors_at(z)
        network = self.hyper.network
        logits = torch.func.vmap(lambda one: torch.func.functional_call(network, one, (images,)))(tensors)
        errors = nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(z)))
        return errors + ((self.low + z[:, 0] * (self.high - self.low)).exp() * penalty(tensors)).mean()


def seconds_apart(data: Data) -> float:
    """Processor seconds of training a network for each penalty, one after the other, without vmap."""
    network, generator = Architecture.parse(RECIPE).build(), torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        images, labels = (part[0] for part in data.batches([generator]))
        size = penalty(dict(network.named_parameters()))
        return nn.functional.cross_entropy(network(images), labels) + PENALTIES[0] * size

    return len(PENALTIES) * optimise([{"params": list(network.parameters()), "lr": RATES[0]}], STEPS, loss, 5 * TIMED)


def trained(data: Data, rates: list[float], seeds: range, unseen: tuple[Tensor, Tensor]) -> list[list[float]]:
    """Accuracies `[penalties][seeds]` of separately trained networks."""
    found: list[list[float]] = [[] for _ in PENALTIES]
    network = Architecture.parse(RECIPE).build()

    def one(tensors: dict[str, Tensor], images: Tensor, labels: Tensor, strength: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, tensors, (images,))
        return nn.functional.cross_entropy(logits, labels) + strength * penalty(tensors)

    several = torch.func.vmap(one)
    for rate in dict.fromkeys(rates):
        places = [index for index, one in enumerate(rates) if one == rate]
        strengths = torch.tensor([PENALTIES[index] for index in places for _ in seeds])
        networks = []
        for seed in [seed for _ in places for seed in seeds]:
            torch.manual_seed(seed)
            networks.append(Architecture.parse(RECIPE).build())
        weights, _ = torch.func.stack_module_state(networks)
        generators = [torch.Generator().manual_seed(seed) for _ in places for seed in seeds]

        def loss(weights=weights, generators=generators, strengths=strengths) -> Tensor:
            return several(weights, *data.batches(generators), strengths).sum()

        optimise([{"params": list(weights.values()), "lr": rate}], STEPS, loss)
        logits = torch.func.vmap(lambda tensors: torch.func.functional_call(network, tensors, (unseen[0],)))(weights)
        for index, place in enumerate(places):
            part = logits[index * len(seeds) : (index + 1) * len(seeds)]
            found[place] = [accuracy(answer, unseen[1]) for answer in part]
    return found


def given(data: Data, setting: Setting, seeds: range, unseen: tuple[Tensor, Tensor]) -> tuple[list, float]:
    """The same of the networks that hypernetworks give, and the seconds of one hypernetwork."""
    responses = []
    for seed in seeds:
        torch.manual_seed(seed)
        responses.append(Response(setting))
    weights, _ = torch.func.stack_module_state(responses)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    count = setting.conditions

    def batches() -> tuple[Tensor, Tensor, Tensor]:
        shifts = torch.stack([torch.rand(count, generator=one) for one in generators])
        return ((torch.arange(count) + shifts) / count).unsqueeze(-1), *data.batches(generators)  # z [seeds, count, 1]

    def one(tensors: dict[str, Tensor], *batch: Tensor) -> Tensor:
        return torch.func.functional_call(responses[0], tensors, batch)

    def groups(weights: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        base = [tensor for name, tensor in weights.items() if name.startswith("hyper.network.")]
        others = [tensor for name, tensor in weights.items() if not name.startswith("hyper.network.")]
        return [{"params": base, "lr": setting.rate}, {"params": others, "lr": setting.head_rate}]

    several = torch.func.vmap(one)
    optimise(groups(weights), setting.steps, lambda: several(weights, *batches()).sum())
    alone = Response(setting)
    seconds = optimise(
        groups(dict(alone.named_parameters())), setting.steps, lambda: alone(*(part[0] for part in batches())), TIMED
    )
    with torch.no_grad():
        for index, response in enumerate(responses):
            response.load_state_dict({name: one[index] for name, one in weights.items()})
        found = [
            [accuracy(response.hyper(strength, unseen[0]), unseen[1]) for response in responses]
            for strength in PENALTIES
        ]
    return found, seconds


def gaps(one: list, other: list) -> list[float]:
    """Mean over seeds of one less that of the other, at each penalty."""
    return [statistics.mean(a) - statistics.mean(b) for a, b in zip(one, other, strict=True)]


def tune(data: Data) -> dict[str, Any]:
    """The rate of each separate network, and the hypernetwork's setting, that are best on validation images.

    A separate network's is that of the highest accuracy; the hypernetwork's that of the smallest of largest gaps; all
    settings take the same time.
    """
    tables = {rate: trained(data, [rate] * len(PENALTIES), TUNING_SEEDS, data.validation) for rate in RATES}
    rates = [max(RATES, key=lambda rate: statistics.mean(tables[rate][index])) for index in range(len(PENALTIES))]
    best = [tables[rate][index] for index, rate in enumerate(rates)]
    tried = []
    for setting in GRID:
        found, _ = given(data, setting, TUNING_SEEDS, data.validation)
        tried.append(asdict(setting) | {"largest_gap": round(max(map(abs, gaps(found, best))), 4)})
        print(tried[-1], file=sys.stderr, flush=True)
    chosen = min(tried, key=lambda row: row["largest_gap"])
    return {"rates": rates, "setting": {name: chosen[name] for name in asdict(GRID[0])}, "tried": tried}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="only choose the settings anew, on validation images")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, path = Data(), options.out / "hypernetwork_regularisation.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    if options.tune:
        write_text(path, json.dumps({"tuning": tune(data)}, indent=1) + "\n")
        return
    if "tuning" not in old:
        parser.error("nothing is tuned yet: run it with --tune first")
    old = {"tuning": old["tuning"]}
    setting = Setting(**old["tuning"]["setting"])
    apart, seconds = trained(data, old["tuning"]["rates"], SEEDS, data.test), seconds_apart(data)
    together, hyper_seconds = given(data, setting, SEEDS, data.test)
    rows = [
        {
            "penalty": strength, "trained": [round(one, 4) for one in a], "hypernetwork": [round(one, 4) for one in b],
            "gap": round(gap, 4),
        }
        for strength, a, b, gap in zip(PENALTIES, apart, together, gaps(together, apart), strict=True)
    ]  # fmt: skip
    result = {
        "command": "scripts/benchmarks/hypernetwork-regularisation",
        "images": {"trained": IMAGES, "validation": HELD_OUT, "test": len(data.test[1])}, "steps": STEPS,
        "seconds_of_all_networks": round(seconds, 2), "seconds_of_the_hypernetwork": round(hyper_seconds, 2),
        "share": round(hyper_seconds / seconds, 3), "largest_gap": max(abs(row["gap"]) for row in rows),
        "within_half_a_point": sum(abs(row["gap"]) <= 0.005 for row in rows), "rows": rows, **old,
    }  # fmt: skip
    write_text(path, json.dumps(result, indent=1) + "\n")
    plot(result, options.out / "hypernetwork_regularisation.png")
    print(json.dumps({name: value for name, value in result.items() if name not in ("rows", "tuning")}, indent=1))
    for row in rows:
        print(f"{row['penalty']:.1e}", row["trained"], row["hypernetwork"], row["gap"])


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.6, 3.8))
    strengths = [row["penalty"] for row in result["rows"]]
    styles = (
        ("trained", "trained for each penalty", "#2c3e50", "o"),
        ("hypernetwork", "one hypernetwork", "#c0392b", "*"),
    )
    for name, label, color, marker in styles:
        values = [[100 * one for one in row[name]] for row in result["rows"]]
        axis.plot(strengths, [statistics.mean(one) for one in values], color=color, marker=marker, label=label)
        axis.fill_between(strengths, [*map(min, values)], [*map(max, values)], color=color, alpha=0.15)
    axis.set_xscale("log")
    axis.set_xlabel("weight penalty λ")
    axis.set_ylabel("accuracy on unseen digits, %")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
