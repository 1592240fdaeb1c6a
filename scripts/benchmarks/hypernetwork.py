"""The forms of a hypernetwork against each other: steps to 90 % and 95 %, final accuracy, learning rates they bear.

The task is that of `rotated.py`. Runs of one seed see the same images and angles in the same order. Writes
results/hypernetwork.json after every run, goes on where it was stopped, and draws results/hypernetwork.png. Run it as
`scripts/benchmarks/hypernetwork`; `--part` runs one of its parts, `--plot-only` draws and prints the committed results.
"""

import argparse
import fcntl
import itertools
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from peer import Peer
from rotated import ANGLES, LARGEST, Rotated, primary
from torch import nn

from weightgen.generators.hypernetwork import hypernetwork
from weightgen.storage import atomic

FOLDER = Path(__file__).resolve().parent / "results"
EVERY = 25
PLAIN, INPUT, OUTPUT, PUBLISHED, OURS = (
    "plain", "+ input encoding", "+ output encoding, published", "MIP, published", "weightgen"
)  # fmt: skip
HYPERLIGHT = "hyperlight 0.0.5, MIP"
OURS_PLAIN_INPUT, KAIMING_BASE, KAIMING_HEAD = (
    "+ output encoding, weightgen", "MIP, θ₀ kaiming, h zero", "MIP, θ₀ own, h kaiming"
)  # fmt: skip
FORMS: dict[str, dict[str, Any]] = {
    PLAIN: {"input_encoding": False, "output_encoding": False},
    INPUT: {"output_encoding": False},
    OUTPUT: {"input_encoding": False, "initial": "published"},
    PUBLISHED: {"initial": "published"},
    OURS: {},
    OURS_PLAIN_INPUT: {"input_encoding": False},
    KAIMING_BASE: {},
    KAIMING_HEAD: {},
    HYPERLIGHT: {},
}
RATES = {"adam": (1e-3, 3e-4), "sgd": (1e-2, 3e-2)}
"""Optimiser → the rates of the table; the plot shows the first."""
LONG = 2000
"""Steps of the plain form, which needs the most."""
SWEEP = [10 ** (-4 + 3 * index / 19) for index in range(20)]


def make(form: str, seed: int) -> Any:
    """A hypernetwork of a form; the two that separate the causes are made from the default."""
    torch.manual_seed(seed)
    if form == HYPERLIGHT:
        return Peer(primary())
    hyper = hypernetwork(primary(), 1, **FORMS[form])
    if form == KAIMING_HEAD:
        hyper.head.start_published()
    if form == KAIMING_BASE:
        for parameter in hyper.base.values():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="leaky_relu")
            else:
                nn.init.zeros_(parameter)
    return hyper


@torch.no_grad()
def accuracy(hyper: Any, sets: list) -> float:
    """Mean over the measured angles."""
    right = [(hyper.forward_at(z, images).argmax(-1) == labels).float().mean().item() for z, images, labels in sets]
    return statistics.mean(right)


def run(data: Rotated, form: str, optimiser: str, rate: float, seed: int, steps: int, measure: bool) -> dict[str, Any]:
    """Trains one hypernetwork; with `measure` its validation accuracy every 25 steps and its test accuracy at last."""
    hyper = make(form, seed)
    parameters = list(hyper.parameters())
    optimise: torch.optim.Optimizer = torch.optim.Adam(parameters, rate, fused=True)
    if optimiser == "sgd":
        optimise = torch.optim.SGD(parameters, rate, momentum=0.9, fused=True)
    curve, losses = [], []
    for step, (z, images, labels) in enumerate(itertools.islice(data.batches(seed), steps), 1):
        loss = nn.functional.cross_entropy(hyper.forward_at(z, images), labels)
        optimise.zero_grad()
        loss.backward()
        optimise.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
        if measure and step % EVERY == 0:
            curve.append(round(accuracy(hyper, data.validation), 4))
    finite = math.isfinite(losses[-1])
    return {
        "form": form, "optimiser": optimiser, "rate": rate, "seed": seed, "steps": len(losses), "finite": finite,
        "loss": round(statistics.mean(losses[-EVERY:]), 4) if finite else None,
        "to_90": _reached(curve, 0.90), "to_95": _reached(curve, 0.95), "curve": curve,
        "test_accuracy": round(accuracy(hyper, data.test), 4) if measure and finite else None,
    }  # fmt: skip


def _reached(curve: list[float], bar: float) -> int | None:
    return next((EVERY * (index + 1) for index, value in enumerate(curve) if value >= bar), None)


def parts(short: int) -> dict[str, list[tuple]]:
    """Part → its runs, most important first: form, optimiser, rate, seed, steps, whether accuracy is measured.

    The plain form gets more steps, for its step to 95 % is what the others are held against.
    """

    def rows(forms: tuple[str, ...], optimiser: str, rate: float, seeds: range, steps: int = 1000) -> list[tuple]:
        return [(form, optimiser, rate, seed, steps, True) for seed, form in itertools.product(seeds, forms)]

    three, further, main = range(3), range(3, 6), (PLAIN, INPUT, OUTPUT, PUBLISHED, OURS)
    return {
        "adam": [
            *rows(main, "adam", 1e-3, three), *rows((PLAIN,), "adam", 1e-3, three, LONG),
            *rows((KAIMING_BASE, KAIMING_HEAD, HYPERLIGHT, OURS_PLAIN_INPUT), "adam", 1e-3, three),
        ],
        "start": [
            *rows((OURS, KAIMING_HEAD, INPUT), "adam", 1e-3, further),
            *rows((KAIMING_HEAD,), "sgd", 1e-2, range(6)), *rows((OURS,), "sgd", 1e-2, further),
        ],
        "sgd": [*rows(main, "sgd", 1e-2, three), *rows((OURS_PLAIN_INPUT,), "sgd", 1e-2, three)],
        "fast-sgd": rows((*main, KAIMING_HEAD), "sgd", 3e-2, three),
        "slow-adam": [
            *rows((INPUT, OURS, OUTPUT, PUBLISHED, KAIMING_HEAD), "adam", 3e-4, three, 1500),
            *rows((PLAIN,), "adam", 3e-4, three, LONG),
        ],
        "sweep": [
            (form, optimiser, rate, 0, short, False)
            for form, optimiser, rate in itertools.product((PLAIN, OURS, PUBLISHED), RATES, SWEEP)
        ],
    }  # fmt: skip


@torch.no_grad()
def magnitudes(points: int = 33) -> dict[str, list[float]]:
    """Form → at each z from 0 to 1, the size of its initial weights over that of the network's own initial weights.

    The root of the mean over matrices of the ratio of mean squares, over 3 seeds.
    """
    own = [make(OURS, seed).base for seed in range(3)]
    size = {name: statistics.mean(base[name].square().mean().item() for base in own) for name in own[0]}
    found = {}
    for form in (PLAIN, INPUT, OUTPUT, PUBLISHED, OURS):
        ratios = []
        for seed in range(3):
            tensors = make(form, seed).tensors_at(torch.linspace(0, 1, points)[:, None])
            matrices = {name: one for name, one in tensors.items() if one.dim() > 2}
            ratios.append(
                torch.stack([one.square().flatten(1).mean(1) / size[name] for name, one in matrices.items()]).mean(0)
            )
        found[form] = [round(value, 4) for value in torch.stack(ratios).mean(0).sqrt().tolist()]
    return found


def longest(result: dict[str, Any], form: str, optimiser: str, rate: float) -> list[dict[str, Any]]:
    """The measured runs of a form, one a seed: the one of most steps, of which the shorter are the beginning."""
    found: dict[int, dict[str, Any]] = {}
    for row in result["runs"]:
        if (row["form"], row["optimiser"], row["rate"]) == (form, optimiser, rate) and row["curve"]:
            found[row["seed"]] = max(row, found.get(row["seed"], row), key=lambda one: one["steps"])
    return [found[seed] for seed in sorted(found)]


def table(result: dict[str, Any]) -> list[str]:
    """Steps to 90 % and 95 % of each seed, and at the end mean accuracies: validation of the last four measures."""
    lines = [
        "| form | optimiser | steps to 90 % | to 95 % | of steps | validation, % | test, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for optimiser in RATES:
        for rate, form in itertools.product(RATES[optimiser], FORMS):
            rows = longest(result, form, optimiser, rate)
            if not rows:
                continue

            def told(name: str, rows: list = rows) -> str:
                return ", ".join("–" if row[name] is None else str(row[name]) for row in rows)

            tests = [row["test_accuracy"] for row in rows]
            final = "diverged" if None in tests else f"{100 * statistics.mean(tests):.1f}"
            last = 100 * statistics.mean(statistics.mean(row["curve"][-4:]) for row in rows)
            steps = max(row["steps"] for row in rows)
            reached = f"{told('to_90')} | {told('to_95')}"
            lines.append(f"| {form} | {optimiser} {rate:g} | {reached} | {steps} | {last:.1f} | {final} |")
    lines += ["", f"Learning rates of {len(SWEEP)} from 1e-4 to 1e-1 that end finite, and that fit (loss below 2):", ""]
    for optimiser, form in itertools.product(RATES, (PLAIN, PUBLISHED, OURS)):
        rows = [
            row for row in result["runs"]
            if row["form"] == form and row["optimiser"] == optimiser and not row["curve"] and row["rate"] in SWEEP
        ]  # fmt: skip
        fits = [row for row in rows if row["finite"] and row["loss"] < 2.0]
        lines.append(
            f"{optimiser} {form}: {sum(row['finite'] for row in rows)} finite, {len(fits)} fit, of {len(rows)}"
        )
    return lines


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 4.4))
    colors = dict(zip(FORMS, ("#7f8c8d", "#2980b9", "#8e44ad", "#e67e22", "#c0392b", "#16a085"), strict=False))
    for axis, optimiser in zip(axes, RATES, strict=False):
        for form, color in colors.items():
            runs = longest(result, form, optimiser, RATES[optimiser][0])
            curves = [row["curve"] for row in runs if row["finite"]]
            if not curves:
                continue
            steps = [EVERY * (index + 1) for index in range(min(map(len, curves)))]
            mean = [100 * statistics.mean(values) for values in zip(*curves, strict=True)]
            axis.plot(steps, mean, color=color, label=form, linewidth=2.4 if form == OURS else 1.3)
        for bar in (90, 95):
            axis.axhline(bar, color="#bdc3c7", linestyle=":", linewidth=1)
        axis.set_ylim(50, 100)
        axis.set_title(
            f"{'Adam' if optimiser == 'adam' else 'SGD with momentum'}, rate {RATES[optimiser][0]:g}", fontsize=10
        )
        axis.set_xlabel("steps of 64 images")
        axis.set_ylabel(f"validation accuracy, mean of {len(ANGLES)} angles of 0 to {LARGEST:.0f}°, %")
        axis.legend(fontsize=7)
    for form, values in result["magnitudes"].items():
        shares = [index / (len(values) - 1) for index in range(len(values))]
        axes[2].plot(shares, values, color=colors[form], label=form, linewidth=2.4 if form == OURS else 1.3)
    axes[2].axhline(1, color="#bdc3c7", linestyle=":", linewidth=1)
    axes[2].set_title("initial weights against the condition", fontsize=10)
    axes[2].set_xlabel("condition z")
    axes[2].set_ylabel("size over that of the network's own initial weights")
    axes[2].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweep-steps", type=int, default=150)
    parser.add_argument("--part", default="all", help="adam, start, sgd, fast-sgd, slow-adam, sweep or all")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--plot-only", action="store_true", help="draw the committed results again")
    options = parser.parse_args()
    path = options.out / "hypernetwork.json"
    if not options.plot_only:
        torch.set_num_threads(1)
        data = Rotated()
        head = {
            "command": "scripts/benchmarks/hypernetwork", "task": f"mnist turned by 0 to {LARGEST:.0f}°",
            "data": data.digest, "torch": torch.__version__, "magnitudes": magnitudes(),
        }  # fmt: skip
        todo = parts(options.sweep_steps)
        chosen = itertools.chain(*todo.values()) if options.part == "all" else todo[options.part]
        _run_all(data, list(chosen), path, head)
    result = _read(path)
    plot(result, options.out / "hypernetwork.png")
    print("\n".join(table(result)))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {"runs": []}


def _run_all(data: Rotated, chosen: list[tuple], path: Path, head: dict[str, Any]) -> None:
    """Makes the runs that are not yet in the file, and adds each to it: parts may run at the same time."""
    for form, optimiser, rate, seed, steps, measure in chosen:
        if any(
            (row["form"], row["optimiser"], row["rate"], row["seed"], bool(row["curve"]))
            == (form, optimiser, rate, seed, measure)
            and (row["steps"] >= steps or not row["finite"])
            for row in _read(path)["runs"]
        ):
            continue
        row = run(data, form, optimiser, rate, seed, steps, measure)
        with open(__file__) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = _read(path) | head
            result["runs"].append(row)
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(result) + "\n")
        told = {name: value for name, value in row.items() if name != "curve"}
        print(told, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
