"""The behavioural WeightTokenizer: align → normalise → gather by layout → vector-quantise → codes; and back.

Codes carry what differs between networks; the decoder, which sees the whole sequence of codes at once, carries what
makes a network work. It is trained on the behaviour of what it decodes (`training.py`).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.artefact import part, read_artefact, write_artefact
from weightgen.checkpoint import Checkpoint
from weightgen.errors import ArchitectureError, CorruptFileError, UnknownNameError, WeightgenError
from weightgen.registry import unknown_name
from weightgen.structure.alignment import flat
from weightgen.tokenizers.layout import Layout
from weightgen.tokenizers.model import Codec, CodecConfig
from weightgen.tokenizers.normalizer import Normalizer, Tensors, frame_key
from weightgen.tokenizers.tokens import WeightTokens

KIND = "weight-tokenizer"


@dataclass(frozen=True)
class Cell:
    """The networks of one task and architecture.

    Args:
        task: name of the task.
        architecture: their recipe.
        tensors: name → `[networks, …]`.
        ids: the Checkpoint id of each.
        accuracies: the test accuracy of each, None where it was not measured.
    """

    task: str
    architecture: Architecture
    tensors: Tensors
    ids: Sequence[str] = ()
    accuracies: Sequence[float | None] = ()


class BehaviouralTokenizer:
    """Networks of the architectures it was trained on ↔ codes.

    Args:
        codecs: `frame_key` of an architecture → projection, quantiser and decoders.
        normalizers: `frame_key` of an architecture → Normalizer.
    """

    KIND: ClassVar[str] = KIND

    def __init__(
        self, codecs: Mapping[str, Codec], normalizers: Mapping[str, Normalizer], provenance: Mapping[str, Any]
    ) -> None:
        self.codecs = dict(codecs)
        self.normalizers = dict(normalizers)
        self.provenance = dict(provenance)

    @classmethod
    def untrained(cls, config: CodecConfig, cells: Sequence[Cell]) -> "BehaviouralTokenizer":
        """A tokenizer that fits the given training networks in all but its decoders, which are random."""
        by_frame: dict[str, dict[str, Cell]] = {}
        for cell in cells:
            frame = by_frame.setdefault(frame_key(cell.architecture), {})
            if cell.task in frame:
                raise ArchitectureError(
                    f"two architectures of the task {cell.task} have the same shapes and activation",
                    got=f"{frame[cell.task].architecture} and {cell.architecture}",
                    remedy="train a tokenizer for each",
                )
            frame[cell.task] = cell
        normalizers = {
            key: Normalizer.fit(
                next(iter(frame.values())).architecture,
                config.chunk,
                {task: cell.tensors for task, cell in frame.items()},
            )
            for key, frame in by_frame.items()
        }
        codecs = {key: _codec(config, normalizer) for key, normalizer in normalizers.items()}
        for key, frame in by_frame.items():
            normalizer = normalizers[key]
            values = [normalizer.normalise(normalizer.align(cell.tensors, task), task) for task, cell in frame.items()]
            codecs[key].fit(torch.cat(values))
        return cls(codecs, normalizers, {})

    @property
    def config(self) -> CodecConfig:
        """The sizes of every codec."""
        return next(iter(self.codecs.values())).config

    def normalizer(self, architecture: Architecture) -> Normalizer:
        """The frame of an architecture.

        Raises:
            UnknownNameError: if the tokenizer was not trained on it.
        """
        if frame_key(architecture) not in self.normalizers:
            known = [str(normalizer.architecture) for normalizer in self.normalizers.values()]
            raise unknown_name("architecture of this tokenizer", str(architecture), known)
        return self.normalizers[frame_key(architecture)]

    def codec(self, architecture: Architecture) -> Codec:
        """The codec of an architecture.

        Raises:
            UnknownNameError: if the tokenizer was not trained on it.
        """
        self.normalizer(architecture)
        return self.codecs[frame_key(architecture)]

    @functools.cached_property
    def tasks(self) -> list[str]:
        """All tasks of all architectures, in a fixed order."""
        return sorted({task for normalizer in self.normalizers.values() for task in normalizer.references})

    def coordinates(self, architecture: Architecture) -> Tensor:
        """Structural coordinates of every token of a sequence, zeros for the header: `[1 + tokens, coordinates]`."""
        coordinates = self.layout(architecture).coordinates
        return torch.cat([torch.zeros_like(coordinates[:1]), coordinates])

    def layout(self, architecture: Architecture) -> Layout:
        return self.normalizer(architecture).layout

    @torch.no_grad()
    def encode_batch(self, tensors: Tensors, architecture: Architecture, task: str) -> Tensor:
        """Networks `[networks, …]` → codes int64 `[networks, 1 + tokens, levels]`; the header names the task."""
        normalizer = self.normalizer(architecture)
        codes = self.codec(architecture).encode(normalizer.normalise(normalizer.align(tensors, task), task))
        header = torch.zeros_like(codes[:, :1])
        header[..., 0] = self.tasks.index(task)
        return torch.cat([header, codes], dim=1)

    @torch.no_grad()
    def decode_batch(self, codes: Tensor, architecture: Architecture) -> dict[str, Tensor]:
        """Codes `[networks, 1 + tokens, levels]`, all of one task, → tensors `[networks, …]`.

        Raises:
            CorruptFileError: if the codes do not fit the architecture, the codebook, or name several tasks or none.
        """
        normalizer, tasks = self.normalizer(architecture), codes[:, 0, 0].unique().tolist()
        expected = (1 + normalizer.layout.tokens, self.config.levels)
        fits = tuple(codes.shape[1:]) == expected and bool(((codes >= 0) & (codes < self.config.codebook)).all())
        known = len(tasks) == 1 and tasks[0] < len(self.tasks) and self.tasks[tasks[0]] in normalizer.references
        if codes.dtype != torch.int64 or not fits or not known:
            raise CorruptFileError(
                "codes that do not fit",
                where=architecture,
                got=f"{codes.dtype} of shape {tuple(codes.shape[1:])} for task {tasks}",
                expected=f"torch.int64 of shape {expected}, 0 to {self.config.codebook - 1}",
            )
        task = self.tasks[tasks[0]]
        return normalizer.denormalise(self.codec(architecture).decode(codes[:, 1:], task), task)

    def encode(self, checkpoint: Checkpoint) -> WeightTokens:
        """One network to codes.

        Raises:
            UnknownNameError: if its architecture or task was not seen in training.
        """
        architecture, task = checkpoint.architecture, checkpoint.card.task
        if task is None:
            raise UnknownNameError(
                "the checkpoint's card names no task", expected="the task whose reference to align to"
            )
        tensors = {name: tensor[None].float() for name, tensor in checkpoint.state_dict().items()}
        return WeightTokens(self.encode_batch(tensors, architecture, task)[0], architecture)

    def decode(self, tokens: WeightTokens) -> dict[str, Tensor]:
        """Codes to the tensors of one network.

        Raises:
            CorruptFileError: if the codes do not fit the architecture or the codebook.
        """
        if tokens.codes.dim() != 2 or not len(tokens.codes):
            raise CorruptFileError("codes that do not fit", where=tokens.architecture, got=list(tokens.codes.shape))
        return {name: tensor[0] for name, tensor in self.decode_batch(tokens.codes[None], tokens.architecture).items()}

    def bits_per_weight(self, architecture: Architecture) -> float:
        """How many bits of code there are for each value of a network."""
        bits = self.config.levels * (self.config.codebook - 1).bit_length()
        return self.layout(architecture).tokens * bits / architecture.parameters

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Whether it was trained on networks of this architecture and task."""
        normalizer = self.normalizers.get(_key(checkpoint.architecture))
        return normalizer is not None and checkpoint.card.task in normalizer.references

    def measure(self, checkpoint: Checkpoint, tokens: WeightTokens) -> dict[str, Any]:
        """What tokens cost and lose: `{"tokens", "levels", "bits_per_weight", "snr_db"}`.

        The ratio of signal to error is of weights, after alignment; what counts is the accuracy of the decoded network.
        """
        architecture = checkpoint.architecture
        tensors = {name: tensor[None].float() for name, tensor in checkpoint.state_dict().items()}
        aligned = flat(self.normalizer(architecture).align(tensors, str(checkpoint.card.task)))
        error = flat({name: tensor[None] for name, tensor in self.decode(tokens).items()}) - aligned
        return {
            "tokens": len(tokens.codes),
            "levels": self.config.levels,
            "bits_per_weight": round(self.bits_per_weight(architecture), 4),
            "snr_db": round((20 * (aligned.norm() / error.norm()).log10()).item(), 2),
        }

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        """Writes `config.json`, `model.safetensors` and the card; the codecs in half precision."""
        tensors, architectures = {}, {}
        for key, codec in self.codecs.items():
            tensors |= {f"codec/{key}/{name}": halved(tensor) for name, tensor in codec.state_dict().items()}
        for key, normalizer in self.normalizers.items():
            architectures[key] = {
                "architecture": str(normalizer.architecture), "tasks": list(normalizer.references)
            }  # fmt: skip
            tensors[f"scales/{key}"] = normalizer.scales
            for task, reference in normalizer.references.items():
                tensors |= {f"reference/{key}/{task}/{name}": tensor for name, tensor in reference.items()}
        config = {"codec": asdict(self.config), "architectures": architectures, "provenance": self.provenance}
        write_artefact(folder, KIND, config, tensors, card)

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str) -> "BehaviouralTokenizer":
        """A saved tokenizer, by folder or by its name on the shelf.

        Raises:
            MissingDataError: if there is none.
            CorruptFileError: if it is damaged.
        """
        from weightgen.shelf import shelf

        folder = shelf("tokenizers", name_or_folder)
        config, tensors = read_artefact(folder, KIND)
        try:
            sizes = CodecConfig(**config["codec"])
            normalizers = {
                key: Normalizer(
                    Architecture.parse(entry["architecture"]),
                    sizes.chunk,
                    {task: part(tensors, f"reference/{key}/{task}") for task in entry["tasks"]},
                    tensors[f"scales/{key}"],
                )
                for key, entry in config["architectures"].items()
            }
            codecs = {key: _codec(sizes, normalizer) for key, normalizer in normalizers.items()}
            for key, codec in codecs.items():
                codec.load_state_dict(part(tensors, f"codec/{key}"))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CorruptFileError(
                "not a tokenizer that this version can read", where=folder, got=str(error)
            ) from error
        return cls(codecs, normalizers, config["provenance"])


def _codec(config: CodecConfig, normalizer: Normalizer) -> Codec:
    return Codec(config, normalizer.layout.mask, list(normalizer.references)).eval()


def halved(tensor: Tensor) -> Tensor:
    """In the precision that codecs are saved in; whole numbers as they are."""
    return tensor.half() if tensor.is_floating_point() else tensor


def _key(architecture: Architecture) -> str | None:
    """The `frame_key`, None for an architecture that can have none."""
    try:
        return frame_key(architecture)
    except (KeyError, WeightgenError):
        return None
