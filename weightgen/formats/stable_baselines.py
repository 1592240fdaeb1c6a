"""Agents of Stable-Baselines3: of the zip only `policy.pth` is opened, since `data` holds pickles.

Hyperparameters come from the `config.yml` and returns from the `evaluations.npz` beside it, laid out as in
https://github.com/DLR-RM/rl-trained-agents: `ALGORITHM/TASK_1/TASK.zip`.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy

from weightgen.checkpoint import Metric, Scalar
from weightgen.formats.format import Network, damaged, register
from weightgen.formats.numpy_file import arrays
from weightgen.formats.settings import read_yaml
from weightgen.formats.tensors import facts, once
from weightgen.formats.torch_file import networks

POLICY = "policy.pth"
MAXIMUM_POLICY = 2**30

RATES = {
    "a2c": 7e-4, "ppo": 3e-4, "dqn": 1e-4, "qrdqn": 5e-5, "sac": 3e-4, "tqc": 3e-4, "td3": 1e-3, "ddpg": 1e-3,
    "trpo": 1e-3, "ars": 2e-2,
}  # fmt: skip
"""The learning rates that the library takes where the settings name none."""


def _recognises(path: Path, head: bytes) -> bool:
    return head[:2] == b"PK" and POLICY in zipfile.ZipFile(path).namelist()


@register("stable-baselines3", "Stable-Baselines3 agent", _recognises)
def read(path: Path) -> list[Network]:
    """The one policy of an agent."""
    with zipfile.ZipFile(path) as archive:
        info = once((each.filename, each) for each in archive.infolist())[POLICY]
        # Deflate packs a thousand to one at the very most.
        if info.file_size > min(MAXIMUM_POLICY, 1100 * info.compress_size + 1000):
            raise damaged(path, f"{POLICY} says that it has {info.file_size:,} bytes", "agent")
        content = archive.read(info)

    def opener() -> IO[bytes]:
        return io.BytesIO(content)

    folder = path.parent.resolve()
    configs = sorted(folder.glob("*/config.yml"))
    config = folder / path.stem / "config.yml"
    if not config.is_file() and len(configs) == 1:
        config = configs[0]
    task = config.parent.name if config.is_file() else path.stem
    evaluations = _evaluations(folder / "evaluations.npz", best=path.stem == "best_model")
    found = networks(path, opener, "stable-baselines3")
    return [
        Network(one.part, one.checkpoint.replace_card(
            task=task, run=f"{folder.parent.name}/{folder.name}",
            hyperparameters={**_settings(read_yaml(config), folder.parent.name), **evaluations[0]},
            metrics=evaluations[1],
        ))
        for one in found
    ]  # fmt: skip


def _settings(config: dict[str, Any], algorithm: str) -> dict[str, Scalar]:
    """The settings of a run; `lin_0.0008` is a rate of 0.0008 that falls linearly to 0."""
    settings = facts(config)
    if algorithm.lower() in RATES:
        settings["algorithm"] = algorithm.lower()
        if "learning_rate" not in settings:
            settings["learning_rate"] = RATES[algorithm.lower()]
            settings["learning_rate_source"] = "the library's default"
    rate = settings.get("learning_rate")
    if isinstance(rate, str) and re.fullmatch(r"lin_[\d.e+-]{1,20}", rate):
        settings.update(learning_rate=float(rate.removeprefix("lin_")), learning_rate_schedule="linear")
    return settings


def _evaluations(path: Path, best: bool) -> tuple[dict[str, Scalar], tuple[Metric, ...]]:
    """The last evaluation of a run, or that of its best model: settings and figures."""
    if not path.is_file():
        return {}, ()
    try:
        found = {name: array() for name, (_, _, array) in arrays(path).items()}
        returns = numpy.asarray(found["results"], numpy.float64)
        means = returns.reshape(len(returns), -1).mean(1)
        place = int(means.argmax()) if best else len(means) - 1
        values = {
            "mean_return": means[place],
            "return_deviation": returns[place].std(),
            "mean_episode_length": numpy.asarray(found["ep_lengths"], numpy.float64)[place].mean(),
        }
        settings: dict[str, Scalar] = {"evaluated_at_timestep": int(found["timesteps"][place])}
    except Exception:
        # An agent is worth keeping whatever the file beside it may be.
        return {}, ()
    return settings, tuple(
        Metric(name, float(value), "test", "") for name, value in values.items() if numpy.isfinite(value)
    )
