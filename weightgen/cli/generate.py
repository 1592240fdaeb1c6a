"""`weightgen generate`: from an instruction to working networks."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.cli.output import print_json, table
from weightgen.errors import OutputError, WeightgenError

if TYPE_CHECKING:
    from weightgen.generation import Generation

DEFAULT_OUT = Path("generated.safetensors")


def generate(
    prompt: str | None = None,
    *,
    condition: list[str] | None = None,
    task: str | None = None,
    arch: str | None = None,
    num: int = 1,
    seed: int = 0,
    best_of: int = 1,
    refine: int = 0,
    generator: str = "starter",
    temperature: float | None = None,
    top_p: float | None = None,
    out: Path | None = None,
    force: bool = False,
    json: bool = False,
) -> None:
    """Write new networks from an instruction.

    Example: weightgen generate "a small CNN that reads handwritten digits, under 5k parameters" --out cnn.safetensors

    Parameters
    ----------
    prompt
        What the network is for and what it should be like, in free words.
    condition
        For a hypernetwork, in place of a prompt: NAME=VALUE, once for each of its conditions.
    task
        The task, where the prompt leaves it open: digits, mnist.
    arch
        The architecture's recipe, e.g. weightgen/mlp?hidden=48.
    num
        How many networks; with more than one, --out is a folder.
    seed
        The same seed gives the same networks.
    best_of
        Networks drawn for each one kept, chosen on validation data.
    refine
        Training steps of batch 64 after sampling.
    generator
        A folder, or a name on the shelf.
    temperature
        How freely codes are drawn; 1 as learned.
    top_p
        Draw only from the likeliest codes with this probability together.
    out
        Where to write: generated.safetensors, or a folder for several.
    force
        Overwrite what is there.
    json
        Print JSON.
    """
    from weightgen.generation import run, run_condition, understand

    target = out or (DEFAULT_OUT if num == 1 else DEFAULT_OUT.with_suffix(""))
    _check_target(target, num, force)
    if condition:
        _check_condition(prompt, num, best_of, refine)
        result = run_condition(generator, condition)
    else:
        request = understand(prompt or "", task, arch, generator)
        print(request.describe(), file=sys.stderr, flush=True)
        with _stages() as show:
            result = run(
                request, num=num, seed=seed, best_of=best_of, refine=refine, generator=generator,
                sampling=_sampling(temperature, top_p), show=show,
            )  # fmt: skip
    paths = _save(result, target, num, force)
    if json:
        return print_json(_json(result, paths))
    _print(result, paths)


def _sampling(temperature: float | None, top_p: float | None) -> Any:
    if temperature is None and top_p is None:
        return None
    from weightgen.generators.igpg import Sampling

    return Sampling(1.0 if temperature is None else temperature, 1.0 if top_p is None else top_p)


def _check_condition(prompt: str | None, num: int, best_of: int, refine: int) -> None:
    """A condition has one network, so what is said of several means nothing."""
    if prompt is not None or (num, best_of, refine) != (1, 1, 0):
        raise WeightgenError(
            "--condition gives the one network of a hypernetwork", got="a prompt, --num, --best-of or --refine",
            remedy="leave that out",
        )  # fmt: skip


def _check_target(target: Path, num: int, force: bool) -> None:
    """Said before the work, not after it; the file itself is written atomically at the end."""
    import os

    if num > 1 and target.exists() and not target.is_dir():
        raise OutputError("--out must be a folder for more than one network", where=target)
    if num == 1 and target.is_dir():
        raise OutputError(
            "--out is a folder", where=target, expected="a file name", remedy=f"--out {target}/one.safetensors"
        )
    if not force and target.exists() and (num == 1 or any(target.iterdir())):
        raise OutputError(
            "--out exists already", where=target, remedy="choose another name, or overwrite it with --force"
        )
    parent = next(folder for folder in [*target.absolute().parents] if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError("--out cannot be written", where=target, remedy="choose another place")


@contextlib.contextmanager
def _stages() -> Iterator[Any]:
    """A spinner with the current stage on stderr; silent where that is no terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _save(result: "Generation", target: Path, num: int, force: bool) -> list[Path]:
    paths = [target] if num == 1 else [target / f"{index:04d}.safetensors" for index in range(num)]
    for path, network in zip(paths, result.networks, strict=True):
        network.checkpoint.save(path, force=force)
    return paths


def _json(result: "Generation", paths: list[Path]) -> dict[str, Any]:
    request = result.request
    return {
        "request": {
            "task": request.task, "architecture": request.architecture, "constraints": request.constraints.to_json()
        },
        "networks": [
            {
                "path": str(path),
                "architecture": str(network.checkpoint.architecture),
                "task": request.task,
                "parameters": network.checkpoint.parameters,
                "metrics": {"accuracy": network.accuracy},
                "novelty": network.novelty,
                "seconds": network.seconds,
            }
            for path, network in zip(paths, result.networks, strict=True)
        ],
        "zoo": {"accuracy_mean": result.zoo_accuracy, "count": result.zoo_count},
        "notes": result.notes,
    }  # fmt: skip


def _print(result: "Generation", paths: list[Path]) -> None:
    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f} %"

    def plain(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    rows = [
        [
            path,
            percent(network.accuracy),
            percent(result.zoo_accuracy),
            plain(network.novelty["distance_ratio"]),
            plain(network.novelty["error_iou"]),
            percent(network.novelty["token_replay"]),
            f"{network.checkpoint.parameters:,}",
            f"{network.seconds:.2f}",
        ]
        for path, network in zip(paths, result.networks, strict=True)
    ]
    columns = ["file", "accuracy", "zoo mean", "distance", "error IoU", "tokens copied", "parameters", "seconds"]
    table(f"{result.request.task} · {result.request.architecture}", columns, rows)
    for note in result.notes:
        print(note, file=sys.stderr)
