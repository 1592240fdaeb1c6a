"""A Task: labelled data in three fixed splits, with a digest that tells one data set from another."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy
import torch
from torch import Tensor

from weightgen.registry import Registry, unknown_name

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Arrays = dict[Split, tuple[numpy.ndarray, numpy.ndarray]]
"""Split → (images uint8 `[n, channels, height, width]`, labels int64 `[n]`)."""


@dataclass(frozen=True)
class Preprocessing:
    """What a network of the task expects: `(pixel / scale − mean) / deviation`, the last two maybe one a channel."""

    scale: float
    mean: float | tuple[float, ...]
    deviation: float | tuple[float, ...]

    def __call__(self, images: numpy.ndarray) -> Tensor:
        """Images uint8 `[n, channels, height, width]` as a network sees them, float32 of the same shape."""
        mean, deviation = (
            torch.tensor(value).view(-1, 1, 1) if isinstance(value, tuple) else value
            for value in (self.mean, self.deviation)
        )
        return (torch.tensor(images, dtype=torch.float32) / self.scale - mean) / deviation


@dataclass(frozen=True)
class Task:
    """Image classification on a fixed data set.

    Args:
        name: e.g. `mnist` or `mnist/3v8`.
        input: shape of one example, `(channels, height, width)`.
        classes: what each output stands for.
        preprocessing: from raw pixels to what the network sees.
        load: reads the raw arrays of all splits; called once, when data is first needed.
    """

    name: str
    input: tuple[int, int, int]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    load: Callable[[], Arrays]

    @functools.cached_property
    def arrays(self) -> Arrays:
        """Raw pixels and labels of every split."""
        return self.load()

    @functools.cached_property
    def _tensors(self) -> dict[Split, tuple[Tensor, Tensor]]:
        return {}

    def split(self, split: Split) -> tuple[Tensor, Tensor]:
        """Images float32 `[n, channels, height, width]` and labels int64 `[n]` of one split.

        Raises:
            UnknownNameError: if there is no such split.
            MissingDataError: if the data set is not on this machine.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        if split not in self._tensors:
            images, labels = self.arrays[split]
            self._tensors[split] = self.preprocessing(images), torch.tensor(labels, dtype=torch.int64)
        return self._tensors[split]

    def train(self) -> tuple[Tensor, Tensor]:
        return self.split("train")

    def validation(self) -> tuple[Tensor, Tensor]:
        return self.split("validation")

    def test(self) -> tuple[Tensor, Tensor]:
        return self.split("test")

    @functools.cached_property
    def digest(self) -> str:
        """A hash of every image and label of every split, in order."""
        hasher = hashlib.sha256()
        for split in SPLITS:
            for array in self.arrays[split]:
                hasher.update(f"{split} {array.dtype} {array.shape}".encode())
                hasher.update(numpy.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()[:16]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy; logits `[..., n, classes]`, labels `[..., n]`, over all leading axes."""
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


_tasks: Registry[Callable[[], Task]] = Registry("task")
_made: dict[str, Task] = {}


def register_task(name: str) -> Callable[[Callable[[], Task]], Callable[[], Task]]:
    """Registers a function that makes the Task of that name."""
    return _tasks.register(name)


def task_names() -> list[str]:
    """The registered tasks; their class subsets (`mnist/3v8`, `digits/even-odd`) come on top."""
    import weightgen.tasks.vision  # noqa: F401, registers the built-in tasks

    return list(_tasks)


def get_task(name: str) -> Task:
    """The Task of that name, made once a process; `BASE/3v8` and `BASE/even-odd` are subsets of BASE.

    Raises:
        UnknownNameError: if there is no such task; it names the near ones.
    """
    from weightgen.tasks.subsets import subset

    known = task_names()
    if name not in _made:
        base, slash, part = name.partition("/")
        if base not in known:
            raise unknown_name("task", name, known)
        _made[name] = subset(get_task(base), part) if slash else _tasks[base]()
    return _made[name]
