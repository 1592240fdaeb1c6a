"""From names, shapes and a way to read them to a Checkpoint, with its architecture where it can be told."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy

from weightgen.architecture import Architecture, Shapes
from weightgen.checkpoint import UNSTATED, Card, Checkpoint, Metric, Scalar
from weightgen.errors import ArchitectureError, CorruptFileError, WeightgenError

if TYPE_CHECKING:
    from torch import Tensor

Kinds = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → (kind such as `float32`, shape)."""

Pieces = Callable[[str], Iterator["Tensor"]]
"""Gives the values of one tensor, flat, a part after the other."""

WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""

MAXIMUM_ENTRIES, MAXIMUM_TEXT, MAXIMUM_DEPTH = 500, 300, 6
"""Facts that are kept of a source, letters of each, and settings within settings."""

PART = 16 * 2**20
"""Bytes that are read at once; an archive's member holds them twice meanwhile."""

METRICS = re.compile(
    r"(best_?|val_?|valid_?|validation_?|test_?|train_?|eval_?|mean_?)*"
    r"(loss|psnr|ssim|acc(uracy)?[15]?|top[15]|prec(ision)?[15]?|recall|f1|m?iou|m?ap|fid|perplexity|bleu|score|reward|return)",
    re.IGNORECASE,
)
"""Names that are figures and not settings."""


def network(
    kinds: Kinds,
    read: Callable[[str], "Tensor"],
    card: Card,
    where: Path,
    architecture: Architecture | None = None,
    pieces: Pieces | None = None,
) -> Checkpoint:
    """A Checkpoint whose tensors `read` gives.

    Args:
        kinds: of the tensors that are there, wrappers' prefixes included.
        architecture: the recipe, if the source names one; it is dropped if the tensors do not fit it.
        where: the source, for error texts.
        pieces: gives the values of one tensor in parts, for those that are too big to be in memory.

    Raises:
        CorruptFileError: if there is no tensor, or one of a kind that is not stored.
    """
    if not kinds:
        raise CorruptFileError("no tensors in it", where=where)
    prefix = next((each for each in WRAPPERS if all(name.startswith(each) for name in kinds)), "")
    named = {name.removeprefix(prefix): kind for name, kind in kinds.items()}
    chosen, absent = _recipe({name: shape for name, (_, shape) in named.items()}, architecture)
    named.update({name: named[source] if source else ("int64", ()) for name, source in absent.items()})

    def fetch(name: str, digest: str) -> "Tensor":
        import torch

        if name in absent and not absent[name]:
            return torch.zeros((), dtype=torch.int64)
        name = absent.get(name) or name
        try:
            tensor = read(prefix + name)
        except WeightgenError:
            raise
        except Exception as error:
            raise damaged(where, f"{type(error).__name__} {error}") from error
        kind, shape = named[name]
        if (str(tensor.dtype), tuple(tensor.shape)) != (f"torch.{kind}", shape):
            raise damaged(where, f"the tensor '{name}' is not what the header says")
        return tensor

    def parts(name: str) -> Iterator["Tensor"]:
        if pieces is None or name in absent:
            return iter((fetch(name, "").reshape(-1),))
        return pieces(prefix + name)

    try:
        return Checkpoint.lazy(chosen, named, {}, fetch, card, parts)
    except ArchitectureError as error:
        raise CorruptFileError("the tensors cannot be stored", where=where, got=str(error)) from error


def from_buffer(buffer: Any, kind: str, shape: tuple[int, ...], offset: int = 0) -> "Tensor":
    """A tensor whose values are those of a buffer, which it shares and keeps.

    Args:
        buffer: writable; as long as the shape needs, which the caller has checked.
        offset: in bytes, where the values begin.
    """
    import torch

    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=getattr(torch, kind))
    if kind == "bool":
        # A byte that is neither 0 nor 1 is no truth value, and what torch makes of one is undefined.
        return (torch.frombuffer(buffer, dtype=torch.uint8, count=count, offset=offset) != 0).view(shape)
    return torch.frombuffer(buffer, dtype=getattr(torch, kind), count=count, offset=offset).view(shape)


def read_into(file: IO[bytes], size: int) -> numpy.ndarray:
    """The next bytes of a file, uint8, `size` of them or fewer if it ends before; they are in memory once."""
    content = numpy.empty(size, numpy.uint8)
    place = 0
    while place < size and (got := file.readinto(content[place : place + PART].data)):  # type: ignore[attr-defined]
        place += got
    return content[:place]


def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs; a name that stands there twice is an error, since parsers differ in which of the two counts.

    Raises:
        ValueError: that names it.
    """
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for name, number in Counter(name for name, _ in pairs).items() if number > 1)
        raise ValueError(f"the name {clean(name)!r} stands there twice")
    return found


def damaged(path: Path, what: str, title: str = "file") -> CorruptFileError:
    """The error for a file that is not what it seems to be."""
    return CorruptFileError(f"the {title} is damaged: {what[:200]}", where=path, remedy="fetch or make it again")


def _recipe(shapes: Shapes, architecture: Architecture | None) -> tuple[Architecture, dict[str, str]]:
    """The recipe that fits, and what a file need not hold: tied tensors → whose values they have, counters → ''."""
    for candidate in (architecture, _residual(shapes)):
        if candidate is None:
            continue
        try:
            expected = candidate.parameter_shapes()
            absent = _absent(candidate, shapes, [name for name in expected if name not in shapes])
        except Exception:
            # A foreign recipe may fail in any way; the tensors are still worth keeping.
            continue
        if absent is not None and all(expected.get(name) == shape for name, shape in shapes.items()):
            return candidate, absent
    return Architecture.unknown(shapes), {}


def _absent(architecture: Architecture, shapes: Shapes, missing: list[str]) -> dict[str, str] | None:
    """What stands for each missing tensor; None if nothing does for one of them."""
    counters = {name: "" for name in missing if name.endswith("num_batches_tracked")}
    if len(counters) == len(missing):
        # Old files lack the counters of batch norms, and no result depends on them.
        return counters
    import torch

    with torch.device("meta"):
        module = architecture.build()
    owners: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    tied = {name: next((one for one in names if one in shapes), "") for names in owners.values() for name in names}
    found = {name: counters.get(name) or tied.get(name, "") for name in missing}
    return None if any(not found[name] for name in missing if name not in counters) else found


def _residual(shapes: Shapes) -> Architecture | None:
    """The residual network for small images whose names these are."""
    if not {"conv1.weight", "bn1.weight", "linear.weight", "layer1.0.conv1.weight"} <= set(shapes):
        return None
    found = [re.match(r"layer(\d{1,2})\.(\d{1,4})\.conv1\.weight$", name) for name in shapes]
    places = [(int(one[1]), int(one[2])) for one in found if one]
    stages = max(stage for stage, _ in places)
    blocks = tuple(sum(stage == each for stage, _ in places) for each in range(1, stages + 1))
    sizes = [shapes[name] for name in ("conv1.weight", "linear.weight")]
    if min(blocks) < 1 or [len(size) for size in sizes] != [4, 2] or min(sizes[0] + sizes[1]) < 1:
        return None
    return Architecture.of(
        "weightgen/resnet", blocks=blocks, width=sizes[0][0], classes=sizes[1][0], input=(sizes[0][1], 32, 32)
    )


def facts(values: Mapping[Any, Any]) -> dict[str, Scalar]:
    """The scalars of nested settings, named by their path such as `optimizer.lr`; what else is in them is left out."""
    found: dict[str, Scalar] = {}
    seen: set[int] = set()

    def collect(inner: Mapping[Any, Any], prefix: str, depth: int) -> None:
        if id(inner) in seen or depth > MAXIMUM_DEPTH:
            return
        seen.add(id(inner))
        for key, value in inner.items():
            name = f"{prefix}{clean(str(key))}"
            if len(found) >= MAXIMUM_ENTRIES:
                return
            if isinstance(value, Mapping):
                collect(value, f"{name}.", depth + 1)
            elif isinstance(value, (list, tuple)) and all(isinstance(one, (str, int, float)) for one in value[:20]):
                found[name] = clean(", ".join(map(str, value[:20])))
            elif isinstance(value, str):
                found[name] = clean(value)
            elif isinstance(value, (bool, int, float)) and -1e300 < value < 1e300:
                found[name] = value

    collect(values, "", 0)
    return found


def split_facts(values: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], tuple[Metric, ...]]:
    """Settings and figures, told apart by their names."""
    metrics = tuple(
        Metric(name, float(value), UNSTATED, "")
        for name, value in values.items()
        if METRICS.fullmatch(name.rpartition(".")[2])
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    )
    names = {metric.name for metric in metrics}
    return {name: value for name, value in values.items() if name not in names}, metrics


def made_with(name: str, path: Path, **more: Any) -> dict[str, Any]:
    """How the Card says where a network was read from."""
    return {"format": name, "file": clean(path.name), **more}


def clean(text: str) -> str:
    """Text that any reader can show: lone surrogates, as in names that are not UTF-8, become signs of their own."""
    return text.encode("utf-8", "replace").decode("utf-8")[:MAXIMUM_TEXT]
