"""Checkpoint: one network's tensors with its Architecture and its Card, one self-describing safetensors file."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightgen.architecture import Architecture
from weightgen.errors import ArchitectureError, CorruptFileError, OutputError
from weightgen.registry import unknown_name
from weightgen.storage import kind_of, read_header, read_shapes, read_tensor, tensor_digest, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

KIND = "checkpoint"
KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
"""The kinds of tensor a Checkpoint may hold."""

SPLITS = ("train", "validation", "test")

UNSTATED = "unstated"
"""The split of a metric of which nobody says on which data it was measured."""

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Metric:
    """One measured figure.

    Args:
        name: e.g. `accuracy`, in 0…1.
        value: a finite number.
        split: the part of the task's data it was measured on.
        digest: the digest of that data set, so that figures on different data are never compared.
    """

    name: str
    value: float
    split: str
    digest: str


@dataclass(frozen=True)
class Card:
    """What is known of a network besides its weights.

    Args:
        task: the Task it is for.
        metrics: measured figures.
        hyperparameters: how it was trained; name → JSON scalar.
        parents: ids of the Checkpoints it was made from.
        origin: `trained`, `generated`, `refined`, ….
        run: id of the training run; splits are by run, so that snapshots of one run never fall on both sides.
        split: the part of its zoo the run belongs to: `train`, `validation` or `test`.
        preprocessing: `scale`, `mean` and `deviation` (one, or one a channel) of `(pixel / scale − mean) / deviation`.
        tags: free words.
        made_with: command, seed, code version and whatever else is needed to make it again.
    """

    task: str | None = None
    metrics: tuple[Metric, ...] = ()
    hyperparameters: Mapping[str, Scalar] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    origin: str = ""
    run: str = ""
    split: str | None = None
    preprocessing: Mapping[str, float | tuple[float, ...]] | None = None
    tags: tuple[str, ...] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)

    def metric(self, name: str, split: str = "test") -> float | None:
        """The value of a metric on a split, None if it was not measured."""
        return next((metric.value for metric in self.metrics if (metric.name, metric.split) == (name, split)), None)

    def to_json(self) -> dict[str, Any]:
        """The Card as JSON values; `from_json` is its inverse."""
        return {
            "task": self.task,
            "metrics": [vars(metric).copy() for metric in self.metrics],
            "hyperparameters": dict(self.hyperparameters),
            "parents": list(self.parents),
            "origin": self.origin,
            "run": self.run,
            "split": self.split,
            "preprocessing": None if self.preprocessing is None else dict(self.preprocessing),
            "tags": list(self.tags),
            "made_with": dict(self.made_with),
        }

    @classmethod
    def from_json(cls, value: object) -> "Card":
        """A Card from JSON values that may come from anywhere.

        Raises:
            CorruptFileError: for a value that is not what a Card holds; it names the entry.
        """
        entries = _of_kind(value, "card", dict)
        unknown = set(entries) - _ENTRIES
        if unknown:
            # A newer weightgen may write more; what is not understood must not be lost in silence.
            raise _wrong("card", f"the unknown entry '{min(map(str, unknown))}'", "the entries of a Card")
        preprocessing = entries.get("preprocessing")
        if preprocessing is not None:
            steps = _of_kind(preprocessing, "card.preprocessing", dict)
            preprocessing = {name: _numbers(item, f"card.preprocessing.{name}") for name, item in steps.items()}
        split = entries.get("split")
        if split not in (None, *SPLITS):
            raise _wrong("card.split", repr(split), "train, validation, test or nothing")
        hyperparameters = _of_kind(entries.get("hyperparameters", {}), "card.hyperparameters", dict)
        for name, item in hyperparameters.items():
            if not isinstance(item, (str, int, float, bool, type(None))):
                raise _wrong(f"card.hyperparameters.{name}", type(item).__name__, "a text, a number or a truth value")
        task = entries.get("task")
        return cls(
            task=None if task is None else _of_kind(task, "card.task", str),
            metrics=tuple(_metric(item) for item in _of_kind(entries.get("metrics", []), "card.metrics", list)),
            hyperparameters=hyperparameters,
            parents=_texts(entries.get("parents", []), "card.parents"),
            origin=_of_kind(entries.get("origin", ""), "card.origin", str),
            run=_of_kind(entries.get("run", ""), "card.run", str),
            split=split,
            preprocessing=preprocessing,
            tags=_texts(entries.get("tags", []), "card.tags"),
            made_with=_of_kind(entries.get("made_with", {}), "card.made_with", dict),
        )


_ENTRIES = frozenset(entry.name for entry in dataclasses.fields(Card))


class Checkpoint:
    """One network: an Architecture, the tensors of its state dict, and a Card.

    Tensors of a loaded Checkpoint are read, and checked against their digests, when they are first asked for.
    They are shared with the caller, and must not be changed in place.

    Args:
        architecture: the recipe that `tensors` belong to, or `Architecture.unknown(shapes)`.
        tensors: name → tensor, exactly the names and shapes of `architecture.parameter_shapes()`.
        card: what else is known.

    Raises:
        ArchitectureError: if a tensor is missing, superfluous or of the wrong shape or kind.
    """

    def __init__(self, architecture: Architecture, tensors: Mapping[str, "Tensor"], card: Card | None = None) -> None:
        shapes = {name: (kind_of(tensor), tuple(tensor.shape)) for name, tensor in tensors.items()}
        self.architecture = architecture
        self.card = Card() if card is None else card
        self.shapes = _fitting(architecture, shapes)
        self._tensors = {name: tensors[name].detach() for name in self.shapes}
        self._digests: dict[str, str] = {}
        self._read: Callable[[str, str], Tensor] | None = None
        self._pieces: Callable[[str], Iterator[Tensor]] | None = None

    @classmethod
    def lazy(
        cls,
        architecture: Architecture,
        shapes: Mapping[str, tuple[str, tuple[int, ...]]],
        digests: Mapping[str, str],
        read: Callable[[str, str], "Tensor"],
        card: Card,
        pieces: Callable[[str], Iterator["Tensor"]] | None = None,
    ) -> "Checkpoint":
        """A Checkpoint whose tensors are fetched when they are asked for.

        Args:
            shapes: name → (kind such as `float32`, shape).
            digests: name → digest of the tensor; those that are not there are made of what `read` gives.
            read: gives the tensor of a name and a digest (empty if unknown), or raises CorruptFileError.
            pieces: gives the values of a tensor in parts of whole `PIECE`s, if the source can.

        Raises:
            ArchitectureError: if the shapes are not those of the architecture.
        """
        checkpoint = cls.__new__(cls)
        checkpoint.architecture = architecture
        checkpoint.card = card
        checkpoint.shapes = _fitting(architecture, shapes)
        checkpoint._tensors = {}
        checkpoint._digests = dict(digests)
        checkpoint._read = read
        checkpoint._pieces = pieces
        return checkpoint

    @classmethod
    def load(cls, path: Path | str) -> "Checkpoint":
        """Opens a file of `save`; only its header is read now.

        Raises:
            MissingDataError: if there is no such file.
            CorruptFileError: if it is damaged or not a Checkpoint.
            ArchitectureError: if its tensors do not fit its architecture.
        """
        header, digests = read_header(path)
        if header.get("kind") != KIND or not isinstance(header.get("architecture"), str):
            raise CorruptFileError(
                "not a checkpoint", where=path, got=f"kind {header.get('kind')!r}", expected=f"kind '{KIND}'"
            )
        architecture = Architecture.parse(header["architecture"])
        card = Card.from_json(header.get("card"))
        shapes = read_shapes(path)
        if not architecture.known:
            shapes = _ordered(shapes, header.get("order"), path)
        return cls.lazy(architecture, shapes, digests, lambda name, digest: read_tensor(path, name, digest), card)

    def save(self, path: Path | str, force: bool = False) -> None:
        """Writes the Checkpoint as one safetensors file, whole or not at all; the same Checkpoint gives the same bytes.

        Raises:
            OutputError: if the file exists and `force` is not set, or the place cannot be written.
        """
        if not force and Path(path).exists():
            raise OutputError("the file exists", where=path, remedy="choose another name, or overwrite it with --force")
        header: dict[str, Any] = {
            "kind": KIND, "architecture": str(self.architecture), "card": self.card.to_json()
        }  # fmt: skip
        if not self.architecture.known:
            # A recipe knows the order of its tensors; without one the file must.
            header["order"] = list(self.shapes)
        write_tensors(path, self.state_dict(), header)

    def tensor(self, name: str) -> "Tensor":
        """One tensor, in the kind it is stored in.

        Raises:
            UnknownNameError: if the network has no such tensor.
            CorruptFileError: if it does not match its digest.
        """
        if name not in self.shapes:
            raise unknown_name("tensor", name, self.shapes)
        if name not in self._tensors and self._read is not None:
            self._tensors[name] = self._read(name, self._digests.get(name, ""))
        return self._tensors[name]

    def state_dict(self) -> dict[str, "Tensor"]:
        """All tensors, in the order of the module's own state dict and the kinds they are stored in."""
        return {name: self.tensor(name) for name in self.shapes}

    def read(self, name: str) -> "Tensor":
        """One tensor like `tensor`, but not kept: read one after the other, a network of any size fits in memory."""
        if name in self._tensors or self._read is None:
            return self._tensors[name]
        return self._read(name, self._digests.get(name, ""))

    def pieces(self, name: str) -> Iterator["Tensor"]:
        """The values of one tensor, flat, a part after the other; where the source can, one part is in memory."""
        if self._pieces is None or name in self._tensors:
            return iter((self.read(name).reshape(-1),))
        return self._pieces(name)

    def digest(self, name: str) -> str:
        """The digest of one tensor; that of a loaded Checkpoint is known without reading the tensor."""
        if name not in self._digests:
            self._digests[name] = tensor_digest(self.tensor(name))
        return self._digests[name]

    @property
    def id(self) -> str:
        """A hash of the architecture and every tensor: the same network twice has the same id, whatever its Card."""
        return self.identify({name: self.digest(name) for name in self.shapes})

    def identify(self, digests: Mapping[str, str]) -> str:
        """The id, from digests that were made elsewhere; name → digest of every tensor."""
        hasher = hashlib.blake2b(str(self.architecture).encode(), digest_size=16)
        # Without a recipe the order of the tensors is that of some file, which says nothing about the network.
        for name in self.shapes if self.architecture.known else sorted(self.shapes):
            hasher.update(f"\n{name} {digests[name]}".encode())
        return hasher.hexdigest()

    @property
    def parameters(self) -> int:
        """How many trainable values the network has; all floating-point values if its architecture is unknown."""
        if self.architecture.known:
            return self.architecture.parameters
        return sum(math.prod(shape) for kind, shape in self.shapes.values() if "float" in kind)

    def build(self) -> "nn.Module":
        """The network as a ready module: float32, evaluation mode, every tensor in its place."""
        import torch

        with torch.random.fork_rng(devices=[]):
            module = self.architecture.build()
        module.load_state_dict(self.state_dict(), strict=True)
        return module.float().eval()

    def replace_card(self, **changes: Any) -> "Checkpoint":
        """The same network with some entries of its Card changed; tensors are shared."""
        other = Checkpoint.__new__(Checkpoint)
        other.__dict__.update(self.__dict__)
        other.card = dataclasses.replace(self.card, **changes)
        return other

    def non_finite(self) -> list[str]:
        """Names of the tensors that hold a NaN or an infinity."""
        return [name for name, tensor in self.state_dict().items() if not tensor.isfinite().all()]

    def __repr__(self) -> str:
        return f"Checkpoint({self.architecture}, {self.parameters:,} parameters, task {self.card.task})"


def _fitting(
    architecture: Architecture, shapes: Mapping[str, tuple[str, tuple[int, ...]]]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """`shapes` in the architecture's order, after every name and shape has been compared."""
    if architecture.known:
        expected = architecture.parameter_shapes()
    else:
        expected = {name: shape for name, (_, shape) in shapes.items()}
        if Architecture.unknown(expected) != architecture:
            raise ArchitectureError("the tensors are not those of the architecture", where=architecture)
    for name, shape in expected.items():
        if name not in shapes:
            raise ArchitectureError(f"the tensor '{name}' is missing", where=architecture, expected=list(shape))
        kind, got = shapes[name]
        if got != shape:
            raise ArchitectureError(
                f"the tensor '{name}' has the wrong shape", where=architecture, got=list(got), expected=list(shape)
            )
        if kind not in KINDS:
            raise ArchitectureError(
                f"the tensor '{name}' is of a kind that is not stored", got=kind, expected=", ".join(KINDS)
            )
    for name in shapes:
        if name not in expected:
            names = list(expected)
            few = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
            raise ArchitectureError(f"the tensor '{name}' is superfluous", where=architecture, expected=few)
    return {name: shapes[name] for name in expected}


def _ordered(
    shapes: Mapping[str, tuple[str, tuple[int, ...]]], order: object, path: Path | str
) -> dict[str, tuple[str, tuple[int, ...]]]:
    names = _texts(order, "order")
    if sorted(names) != sorted(shapes):
        raise CorruptFileError("the order does not name each tensor once", where=path)
    return {name: shapes[name] for name in names}


def _wrong(where: str, got: str, expected: str) -> CorruptFileError:
    return CorruptFileError("a wrong entry", where=where, got=got, expected=expected)


def _of_kind(value: object, where: str, kind: type) -> Any:
    if not isinstance(value, kind):
        words = {dict: "an object", list: "a list", str: "a text"}
        raise _wrong(where, type(value).__name__, words[kind])
    return value


def _number(value: object, where: str) -> float:
    # The bound refuses NaN and infinity, and integers that no float can hold.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:
        raise _wrong(where, repr(value)[:40], "a finite number")
    return float(value)


def _numbers(value: object, where: str) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(_number(item, where) for item in value)
    return _number(value, where)


def _texts(value: object, where: str) -> tuple[str, ...]:
    return tuple(_of_kind(item, where, str) for item in _of_kind(value, where, list))


def _metric(value: object) -> Metric:
    entries = _of_kind(value, "card.metrics", dict)
    name, split, digest = (
        _of_kind(entries.get(key), f"card.metrics.{key}", str) for key in ("name", "split", "digest")
    )
    return Metric(name, _number(entries.get("value"), f"card.metrics.{name}"), split, digest)
