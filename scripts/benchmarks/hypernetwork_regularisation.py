"""One hypernetwork that gives the network for every weight penalty, against networks trained for each of eight.

The task is digits, from 200 of its images, so that the penalty matters: cross-entropy + λ/2 |weights|². After
"Self-Tuning Networks", https://arxiv.org/abs/1903.03088, which trains such a best response. Rates and the
hypernetwork's form are chosen by `--tune` on validation images, with seeds of their own; then all is trained anew with
other seeds and measured once on test images. Writes results/hypernetwork_regularisation.json and .png. Run it as
`scripts/benchmarks/hypernetwork-regularisation`.
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
from weightgen.generators.hypernetwork import Hypernetwork, hypernetwork
from weightgen.storage import write_text
from weightgen.tasks import get_task

FOLDER = Path(__file__).resolve().parent / "results"
RECIPE = "weightgen/mlp?hidden=64"
PENALTIES = [10 ** (-4 + 3 * index / 7) for index in range(8)]
IMAGES, HELD_OUT, BATCH, STEPS = 200, 500, 64, 1000
RATES = (1e-3, 3e-3, 1e-2)
TUNING_SEEDS, SEEDS = range(100, 103), range(5)


@dataclass(frozen=True)
class Setting:
    """How the hypernetwork is trained: at `conditions` penalties a step, from a range `beyond` times as wide.

    θ₀ has a rate of its own: a step of Adam moves h by the head's rate times the sum of all |features|, which is many
    times as far.
    """

    rate: float
    head_rate: float
    beyond: float = 1.0
    steps: int = 500
    conditions: int = 4
    hidden: int = 16


GRID = [
    Setting(rate, head_rate, beyond)
    for rate, head_rate, beyond in itertools.product((3e-3, 1e-2), (5e-4, 1e-3, 2e-3), (1.0, 1.25))
]


def penalty(tensors: Mapping[str, Tensor]) -> Tensor:
    """Half the sum of squares of all matrices, `[…]` over the leading axes of biases `[…, out]`."""
    matrices = [tensor for name, tensor in tensors.items() if name.endswith("weight")]
    return 0.5 * torch.stack([one.square().sum((-2, -1)) for one in matrices]).sum(0)


def optimise(groups: list[dict[str, Any]], steps: int, loss: Callable[[], Tensor]) -> float:
    """Adam with a cosine to 0; gives the processor seconds."""
    optimiser = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    begin = time.process_time()
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        schedule.step()
    return time.process_time() - begin


class Data:
    """200 images to train on, 500 to choose by, and all others to measure on once."""

    def __init__(self) -> None:
        task = get_task("digits")
        parts = (task.train(), task.validation(), task.test())
        images, labels = (torch.cat(one) for one in zip(*parts, strict=True))
        self.images, self.labels = images[:IMAGES], labels[:IMAGES]
        self.validation = images[IMAGES : IMAGES + HELD_OUT], labels[IMAGES : IMAGES + HELD_OUT]
        self.test = images[IMAGES + HELD_OUT :], labels[IMAGES + HELD_OUT :]

    def batch(self) -> tuple[Tensor, Tensor]:
        index = torch.randint(IMAGES, (BATCH,))
        return self.images[index], self.labels[index]


@torch.no_grad()
def accuracy(logits: Tensor, labels: Tensor) -> float:
    return (logits.argmax(-1) == labels).double().mean().item()


def separate(data: Data, strength: float, rate: float, seed: int) -> tuple[nn.Module, float]:
    """A network trained for one penalty, and its processor seconds."""
    torch.manual_seed(seed)
    network = Architecture.parse(RECIPE).build()

    def loss() -> Tensor:
        images, labels = data.batch()
        size = penalty(dict(network.named_parameters()))
        return nn.functional.cross_entropy(network(images), labels) + strength * size

    return network, optimise([{"params": list(network.parameters()), "lr": rate}], STEPS, loss)


def response(data: Data, setting: Setting, seed: int) -> tuple[Hypernetwork, float]:
    """A hypernetwork of the range of penalties, and its processor seconds."""
    torch.manual_seed(seed)
    low, high = math.log(PENALTIES[0]), math.log(PENALTIES[-1])
    margin = (high - low) * (setting.beyond - 1) / 2
    low, high = low - margin, high + margin
    hyper = hypernetwork(RECIPE, Scalar(math.exp(low), math.exp(high), logarithmic=True), hidden=(setting.hidden,))
    count = setting.conditions

    def loss() -> Tensor:
        images, labels = data.batch()
        z = ((torch.arange(count) + torch.rand(count)) / count)[:, None]
        tensors = hyper.tensors_at(z)
        logits = torch.func.vmap(lambda one: torch.func.functional_call(hyper.network, one, (images,)))(tensors)
        errors = nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(count))
        return errors + ((low + z[:, 0] * (high - low)).exp() * penalty(tensors)).mean()

    others = [*hyper.body.parameters(), *hyper.head.parameters()]
    groups = [{"params": list(hyper.network.parameters()), "lr": setting.rate}]
    return hyper, optimise([*groups, {"params": others, "lr": setting.head_rate}], setting.steps, loss)


def trained(data: Data, rates: list[float], seeds: range, unseen: tuple[Tensor, Tensor]) -> tuple[list, float]:
    """Accuracies `[penalties][seeds]` of separately trained networks, and the seconds of one of each."""
    found, seconds = [], 0.0
    for strength, rate in zip(PENALTIES, rates, strict=True):
        networks = [separate(data, strength, rate, seed) for seed in seeds]
        found.append([accuracy(network(unseen[0]), unseen[1]) for network, _ in networks])
        seconds += statistics.mean(spent for _, spent in networks)
    return found, seconds


def given(data: Data, setting: Setting, seeds: range, unseen: tuple[Tensor, Tensor]) -> tuple[list, float]:
    """The same of the networks that hypernetworks give, and the seconds of one hypernetwork."""
    hypers = [response(data, setting, seed) for seed in seeds]
    found = [
        [accuracy(hyper(strength, unseen[0]), unseen[1]) for hyper, _ in hypers] for strength in PENALTIES
    ]  # fmt: skip
    return found, statistics.mean(spent for _, spent in hypers)


def gaps(one: list, other: list) -> list[float]:
    """Mean over seeds of one less that of the other, at each penalty."""
    return [statistics.mean(a) - statistics.mean(b) for a, b in zip(one, other, strict=True)]


def tune(data: Data) -> dict[str, Any]:
    """The rate of each separate network, and the hypernetwork's setting, that are best on validation images.

    A separate network's is that of the highest accuracy; the hypernetwork's that of the smallest of largest gaps, among
    the settings that take less than a quarter of the seconds.
    """
    tables = {rate: trained(data, [rate] * len(PENALTIES), TUNING_SEEDS, data.validation) for rate in RATES}
    rates = [max(RATES, key=lambda rate: statistics.mean(tables[rate][0][index])) for index in range(len(PENALTIES))]
    best = [tables[rate][0][index] for index, rate in enumerate(rates)]
    seconds = statistics.mean(spent for _, spent in tables.values())
    tried = []
    for setting in GRID:
        found, spent = given(data, setting, TUNING_SEEDS, data.validation)
        row = {"largest_gap": round(max(map(abs, gaps(found, best))), 4), "share": round(spent / seconds, 3)}
        tried.append(asdict(setting) | row)
        print(tried[-1], file=sys.stderr, flush=True)
    allowed = [row for row in tried if row["share"] < 0.25]
    chosen = min(allowed, key=lambda row: row["largest_gap"])
    return {"rates": rates, "setting": {name: chosen[name] for name in asdict(GRID[0])}, "tried": tried}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="choose the settings anew, on validation images")
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, path = Data(), options.out / "hypernetwork_regularisation.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    if options.tune or "tuning" not in old:
        old = {"tuning": tune(data)}
        write_text(path, json.dumps(old, indent=1) + "\n")
    setting = Setting(**old["tuning"]["setting"])
    apart, seconds = trained(data, old["tuning"]["rates"], SEEDS, data.test)
    together, hyper_seconds = given(data, setting, SEEDS, data.test)
    rows = [
        {
            "penalty": strength, "trained": [round(one, 4) for one in a], "hypernetwork": [round(one, 4) for one in b],
            "gap": round(gap, 4),
        }
        for strength, a, b, gap in zip(PENALTIES, apart, together, gaps(together, apart), strict=True)
    ]  # fmt: skip
    result = {
        "command": "scripts/benchmarks/hypernetwork-regularisation --tune",
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
