"""One hypernetwork for every weighting of two losses, against networks trained for each of seven.

A small variational autoencoder of MNIST, https://arxiv.org/abs/1312.6114: reconstruction + β · KL, β of 1/4 to 16. The
hypernetwork is trained with β drawn anew, several a step, and then gives the autoencoder of any β at once: the whole
curve of what can be reconstructed at what cost. Rates of both are chosen by `--tune` on validation images, with another
seed and half the steps. Writes results/hypernetwork_tradeoff.json after every seed, goes on where it was stopped, and
draws results/hypernetwork_tradeoff.png. Run it as `scripts/benchmarks/hypernetwork-tradeoff`.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.generators.conditions import Scalar
from weightgen.generators.hypernetwork import Hypernetwork, hypernetwork
from weightgen.storage import write_text
from weightgen.tasks import get_task

FOLDER = Path(__file__).resolve().parent / "results"
LOWEST, HIGHEST = 0.25, 16.0
WEIGHTINGS = [LOWEST * 2**index for index in range(7)]
STEPS, HYPER_STEPS, BATCH, CONDITIONS = 1000, 1600, 128, 4
RATES = (2e-3, 5e-3, 1e-2)
GRID = [(rate, head) for rate, head in itertools.product((2e-3, 4e-3), (2.5e-4, 1e-3))]
SEEDS, TUNING_SEED = 3, 100


class Autoencoder(nn.Module):
    """784 → 64 → 8 latent numbers → 64 → 784; gives the two losses of images in nats an image."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 784))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.encoder(images).chunk(2, dim=-1)
        latent = mean + (0.5 * spread).exp() * torch.randn_like(mean)
        error = nn.functional.binary_cross_entropy_with_logits(
            self.decoder(latent), images.flatten(1), reduction="none"
        )
        divergence = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(-1)
        return error.sum(-1).mean(), divergence.mean()


class Data:
    """Images of values from 0 to 1."""

    def __init__(self) -> None:
        task = get_task("mnist")
        self.digest = task.digest
        ground = task.train()[0].min()
        scale = task.train()[0].max() - ground
        self.train, self.validation, self.test = (
            (images - ground) / scale for images, _ in (task.train(), task.validation(), task.test())
        )

    def batch(self) -> Tensor:
        return self.train[torch.randint(len(self.train), (BATCH,))]


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


def separate(data: Data, weighting: float, rate: float, seed: int, steps: int = STEPS) -> tuple[Autoencoder, float]:
    """An autoencoder trained for one weighting, and its processor seconds."""
    torch.manual_seed(seed)
    network = Autoencoder()

    def loss() -> Tensor:
        error, divergence = network(data.batch())
        return error + weighting * divergence

    return network, optimise([{"params": list(network.parameters()), "lr": rate}], steps, loss)


def together(
    data: Data, rate: float, head_rate: float, seed: int, steps: int = HYPER_STEPS
) -> tuple[Hypernetwork, float]:
    """A hypernetwork of all weightings, and its processor seconds; a batch is divided among its conditions."""
    torch.manual_seed(seed)
    hyper = hypernetwork(Autoencoder(), Scalar(LOWEST, HIGHEST, logarithmic=True), hidden=(16, 16))

    def loss() -> Tensor:
        z = ((torch.arange(CONDITIONS) + torch.rand(CONDITIONS)) / CONDITIONS)[:, None]
        tensors = hyper.tensors_at(z)
        images = data.batch().unflatten(0, (CONDITIONS, -1))

        def one(weights: dict[str, Tensor], part: Tensor) -> tuple[Tensor, Tensor]:
            return torch.func.functional_call(hyper.network, weights, (part,))

        error, divergence = torch.func.vmap(one, randomness="different")(tensors, images)
        weightings = LOWEST * (HIGHEST / LOWEST) ** z[:, 0]
        # Divided by 1 + β, so that large β do not count most.
        return ((error + weightings * divergence) / (1 + weightings)).mean()

    others = [*hyper.body.parameters(), *hyper.head.parameters()]
    groups = [{"params": list(hyper.network.parameters()), "lr": rate}, {"params": others, "lr": head_rate}]
    return hyper, optimise(groups, steps, loss)


@torch.no_grad()
def losses(answer: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor) -> tuple[float, float]:
    """Reconstruction and KL, with the same noise at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        error, divergence = answer(images)
    return round(error.item(), 3), round(divergence.item(), 3)


def excess(given: list[tuple[float, float]], trained: list[tuple[float, float]]) -> list[float]:
    """At each weighting, how much more the weighted loss is, as a share."""
    pairs = zip(WEIGHTINGS, given, trained, strict=True)
    return [round((one[0] + beta * one[1]) / (other[0] + beta * other[1]) - 1, 4) for beta, one, other in pairs]


def tune(data: Data) -> dict[str, Any]:
    """The rate of the separate networks, and of θ₀ and the head, with the least loss on validation images.

    The loss is the mean over three weightings of the logarithm of the weighted loss: no weighting counts most.
    """

    def value(answers: list[Callable[[Tensor], tuple[Tensor, Tensor]]]) -> float:
        found = [losses(answer, data.validation) for answer in answers]
        return statistics.mean(
            math.log(error + beta * divergence)
            for beta, (error, divergence) in zip(WEIGHTINGS[::3], found, strict=True)
        )

    tried = []
    for rate in RATES:
        networks = [separate(data, beta, rate, TUNING_SEED, STEPS // 2)[0] for beta in WEIGHTINGS[::3]]
        tried.append({"rate": rate, "log_loss": round(value([*networks]), 4)})
        print(tried[-1], file=sys.stderr, flush=True)
    for rate, head_rate in GRID:
        hyper, _ = together(data, rate, head_rate, TUNING_SEED, HYPER_STEPS // 2)
        answers = [lambda images, b=beta, h=hyper: h(b, images) for beta in WEIGHTINGS[::3]]
        tried.append({"rate": rate, "head_rate": head_rate, "log_loss": round(value([*answers]), 4)})
        print(tried[-1], file=sys.stderr, flush=True)
    chosen = [
        min((row for row in tried if ("head_rate" in row) == hyper), key=lambda row: row["log_loss"])
        for hyper in (False, True)
    ]
    return {"trained": chosen[0], "hypernetwork": chosen[1], "tried": tried}


def seed_of(data: Data, tuning: dict[str, Any], seed: int) -> dict[str, Any]:
    """All trainings of one seed: losses on test images of each, and seconds."""
    hyper, hyper_seconds = together(data, tuning["hypernetwork"]["rate"], tuning["hypernetwork"]["head_rate"], seed)
    apart = [separate(data, beta, tuning["trained"]["rate"], seed) for beta in WEIGHTINGS]
    fine = [LOWEST * (HIGHEST / LOWEST) ** (index / 24) for index in range(25)]
    return {
        "seed": seed,
        "trained": [losses(network, data.test) for network, _ in apart],
        "hypernetwork": [losses(lambda images, b=beta: hyper(b, images), data.test) for beta in WEIGHTINGS],
        "curve": [losses(lambda images, b=beta: hyper(b, images), data.test) for beta in fine],
        "seconds_of_all_networks": round(sum(spent for _, spent in apart), 1),
        "seconds_of_the_hypernetwork": round(hyper_seconds, 1),
    }


def summary(result: dict[str, Any]) -> dict[str, Any]:
    runs = result["runs"]
    every = [excess(row["hypernetwork"], row["trained"]) for row in runs]
    mean = [round(statistics.mean(values), 4) for values in zip(*every, strict=True)]
    spent = [row["seconds_of_the_hypernetwork"] / row["seconds_of_all_networks"] for row in runs]
    return {
        "seeds": len(runs), "excess_loss_at_each_weighting": dict(zip(map(str, WEIGHTINGS), mean, strict=True)),
        "largest_excess_loss": max(mean), "share_of_seconds": round(statistics.mean(spent), 3),
    }  # fmt: skip


def plot(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(6, 4.2))
    for row in result["runs"]:
        first = row is result["runs"][0]
        error, divergence = zip(*row["curve"], strict=True)
        axis.plot(
            divergence, error, color="#c0392b", linewidth=1.4, label="one hypernetwork, every β" if first else None
        )
        error, divergence = zip(*row["trained"], strict=True)
        axis.scatter(divergence, error, color="#2c3e50", s=18, zorder=3, label="trained for one β" if first else None)
    for beta, (error, divergence) in zip(WEIGHTINGS, result["runs"][0]["trained"], strict=True):
        axis.annotate(f"β = {beta:g}", (divergence, error), xytext=(6, 5), textcoords="offset points", fontsize=8)
    axis.set_xlabel("KL divergence, nats an image")
    axis.set_ylabel("reconstruction error, nats an image")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="choose the rates anew, on validation images")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--plot-only", action="store_true", help="draw the committed results again")
    options = parser.parse_args()
    path = options.out / "hypernetwork_tradeoff.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
    if not options.plot_only:
        torch.set_num_threads(1)
        data = Data()
        if options.tune or "tuning" not in result:
            result = {
                "command": "scripts/benchmarks/hypernetwork-tradeoff --tune", "data": data.digest,
                "torch": torch.__version__, "weightings": WEIGHTINGS, "steps": STEPS, "hyper_steps": HYPER_STEPS,
                "batch": BATCH, "conditions_a_step": CONDITIONS, "tuning": tune(data), "runs": [],
            }  # fmt: skip
            write_text(path, json.dumps(result, indent=1) + "\n")
        for seed in range(len(result["runs"]), SEEDS):
            result["runs"].append(seed_of(data, result["tuning"], seed))
            result["summary"] = summary(result)
            write_text(path, json.dumps(result, indent=1) + "\n")
            print(summary(result), file=sys.stderr, flush=True)
    plot(result, options.out / "hypernetwork_tradeoff.png")
    print(json.dumps(summary(result), indent=1))


if __name__ == "__main__":
    main()
