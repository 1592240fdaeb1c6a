"""The general form of the WeightTokenizer: any network ↔ codes, with one codebook for all tensors and architectures.

Weights, laid out by their layout, are brought to unit size row by row and quantised. Vectors (biases, norms) and the
smallest weights go beside them in a byte a value, counters and what is shorter than a grid as they are. All of it is
counted in bits per weight.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from weightgen.artefact import read_artefact, write_artefact
from weightgen.checkpoint import Checkpoint
from weightgen.errors import CorruptFileError, WeightgenError
from weightgen.kernels.ops import FLOATING
from weightgen.tokenizers import scaling, vectors
from weightgen.tokenizers.layout import Layout
from weightgen.tokenizers.quantiser import Quantiser, QuantiserConfig
from weightgen.tokenizers.scaling import Scaling
from weightgen.tokenizers.tokens import Kinds, WeightTokens


@dataclass(frozen=True)
class GeneralConfig:
    """Sizes of the general tokenizer.

    Args:
        quantiser: chunk, levels and codebooks.
        scaled: fewest values that share a scale.
    """

    quantiser: QuantiserConfig = field(default_factory=QuantiserConfig)
    scaled: int = 128


SMALL = 1 / 256
"""A tensor of a smaller share of the network's values goes where the vectors go: often it is the first layer or the
last, whose errors nothing evens out, and its bits are few."""


@dataclass(frozen=True)
class Plan:
    """How the tensors of one network are kept, from their kinds and shapes alone.

    Args:
        layout: of the weights, all but the smallest tensors with two axes or more.
        vectors: name → number of values of those in a byte a value.
        kept: names of those that are kept as they are.
    """

    layout: Layout
    vectors: Mapping[str, int]
    kept: tuple[str, ...]

    @classmethod
    def of(cls, shapes: Kinds, chunk: int) -> "Plan":
        weights, short, kept = {}, {}, []
        floating = {name: shape for name, (kind, shape) in shapes.items() if getattr(torch, kind) in FLOATING}
        small = SMALL * sum(math.prod(shape) for shape in floating.values())
        for name, (kind, shape) in shapes.items():
            size = math.prod(shape)
            beside = len(shape) < 2 or size < small
            if name not in floating or (beside and size < vectors.SHORTEST):
                kept.append(name)
            elif beside:
                short[name] = size
            else:
                weights[name] = torch.empty(shape, dtype=getattr(torch, kind), device="meta")
        return cls(Layout.of(weights, chunk), short, tuple(kept))


class GeneralTokenizer:
    """Any network ↔ codes.

    Its codebook was learned on some networks; on others it says itself how well it fits (`measure`: `snr_db`).
    """

    KIND: ClassVar[str] = "general-weight-tokenizer"

    def __init__(self, config: GeneralConfig, quantiser: Quantiser, provenance: Mapping[str, Any]) -> None:
        self.config, self.quantiser, self.provenance = config, quantiser.eval(), dict(provenance)

    @property
    def id(self) -> str:
        """What tells its codes from those of another: a hash of its sizes and codebooks."""
        hasher = hashlib.sha256(repr(self.config).encode())
        for tensor in self._tensors().values():
            hasher.update(tensor.numpy().tobytes())
        return hasher.hexdigest()[:16]

    def knows(self, checkpoint: Checkpoint) -> bool:
        """Any network."""
        return True

    @torch.no_grad()
    def encode(self, checkpoint: Checkpoint, beam: int | None = None) -> WeightTokens:
        """One network to codes.

        Args:
            beam: ways that the search for codes keeps; more of them are slower and lose less.

        Raises:
            CorruptFileError: if a tensor holds NaN or infinity.
        """
        plan = Plan.of(checkpoint.shapes, self.config.quantiser.chunk)
        tensors = {name: checkpoint.read(name) for name in checkpoint.shapes}
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise CorruptFileError(
                    "NaN or infinity cannot be quantised", where=f"tensor '{name}'", expected="finite values"
                )
        weights = {name: tensors[name][None] for name in plan.layout.shapes}
        values = plan.layout.gather(weights, dtype=torch.float32)
        values = values[0] if weights else values.new_zeros(0, plan.layout.chunk)
        scaled = Scaling.of(plan.layout, self.config.scaled)
        scales = scaled.measure(values)
        codes = self.quantiser.encode(scaled.normalise(values, scales), beam)
        steps, grids = vectors.quantise({name: tensors[name] for name in plan.vectors})
        side = {"scales": scales, "vectors": steps, "grids": grids}
        side |= {f"kept/{name}": tensors[name].contiguous() for name in plan.kept}
        return WeightTokens(codes, checkpoint.architecture, checkpoint.shapes, side, self.id)

    @torch.no_grad()
    def decode(self, tokens: WeightTokens) -> dict[str, Tensor]:
        """Codes to the tensors of one network, with its names, shapes and kinds.

        Raises:
            CorruptFileError: if the codes are of another tokenizer, lie outside the codebook or do not fit the shapes.
        """
        if tokens.tokenizer != self.id:
            raise CorruptFileError(
                "codes of another tokenizer", where=tokens.architecture, got=tokens.tokenizer or "a behavioural one",
                expected=self.id, remedy="give the one they were made with as --tokenizer",
            )  # fmt: skip
        plan = Plan.of(tokens.shapes, self.config.quantiser.chunk)
        scaled = Scaling.of(plan.layout, self.config.scaled)
        kinds = {name: getattr(torch, kind) for name, (kind, _) in tokens.shapes.items()}
        self._check(tokens, plan, scaled)
        values = self.quantiser.decode(tokens.codes) * scaled.factors(tokens.side["scales"])
        weights = plan.layout.scatter(values[None], dtypes={name: torch.float32 for name in plan.layout.shapes})
        found = {name: tensor[0] for name, tensor in weights.items()}
        side = tokens.side
        found |= vectors.dequantise(side["vectors"], side["grids"], list(plan.vectors), list(plan.vectors.values()))
        found = {name: _cast(tensor, kinds[name]).view(tokens.shapes[name][1]) for name, tensor in found.items()}
        found |= {name: side[f"kept/{name}"] for name in plan.kept}
        return {name: found[name] for name in tokens.shapes}

    def measure(self, checkpoint: Checkpoint, tokens: WeightTokens) -> dict[str, Any]:
        """What tokens cost and lose.

        Returns:
            `{"tokens", "levels", "bits_per_weight", "snr_db", "snr_db_by_kind"}`; a bit is counted whatever it is for,
            and shared among the trainable values. The ratio of signal to error is of each tensor's values in units of
            its own size, so that a large tensor does not hide the others.
        """
        decoded, kinds = self.decode(tokens), _kinds_of(tokens, self.config.quantiser.chunk)
        signal: dict[str, float] = {}
        error: dict[str, float] = {}
        for name, kind in kinds.items():
            original = checkpoint.read(name).double()
            power = original.square().mean().item()
            if power > 0:
                lost = (decoded[name].double() - original).square().sum().item() / power
                signal[kind] = signal.get(kind, 0.0) + original.numel()
                error[kind] = error.get(kind, 0.0) + lost
        return {
            "tokens": len(tokens.codes),
            "levels": self.config.quantiser.columns,
            "bits_per_weight": round(self.bits(tokens) / max(checkpoint.parameters, 1), 4),
            "snr_db": _decibels(sum(signal.values()), sum(error.values())),
            "snr_db_by_kind": {kind: _decibels(signal[kind], error[kind]) for kind in signal},
        }

    def bits(self, tokens: WeightTokens) -> int:
        """All bits of a network: codes, scales, vectors with their grids, and what is kept."""
        side = tokens.side
        return (
            len(tokens.codes) * self.config.quantiser.bits
            + len(side["scales"]) * scaling.BITS
            + len(side["vectors"]) * vectors.BITS
            + len(side["grids"]) * vectors.FRAME_BITS
            + sum(8 * tensor.nbytes for name, tensor in side.items() if name.startswith("kept/"))
        )

    def save_pretrained(self, folder: Path | str, card: str = "") -> None:
        """Writes `config.json`, `model.safetensors` and the card."""
        config = {
            "quantiser": asdict(self.config.quantiser), "scaled": self.config.scaled, "provenance": self.provenance
        }  # fmt: skip
        write_artefact(folder, self.KIND, config, self._tensors(), card)

    @classmethod
    def from_pretrained(cls, name_or_folder: Path | str) -> "GeneralTokenizer":
        """A saved tokenizer, by folder or by its name on the shelf.

        Raises:
            MissingDataError: if there is none.
            CorruptFileError: if it is damaged.
        """
        from weightgen.shelf import shelf

        folder = shelf("tokenizers", name_or_folder)
        config, tensors = read_artefact(folder, cls.KIND)
        try:
            sizes = GeneralConfig(QuantiserConfig(**config["quantiser"]), config["scaled"])
            return cls(sizes, loaded(sizes.quantiser, tensors), config["provenance"])
        except (KeyError, TypeError, ValueError, RuntimeError, WeightgenError) as error:
            raise CorruptFileError(
                "not a tokenizer that this version can read", where=folder, got=str(error)
            ) from error

    def _tensors(self) -> dict[str, Tensor]:
        if self.config.quantiser.kind == "scalar":
            return {"reach": self.quantiser.reach.half()}
        return {"codebooks": self.quantiser.codebooks().half().contiguous()}

    def _check(self, tokens: WeightTokens, plan: Plan, scaled: Scaling) -> None:
        """Refuses tokens whose parts do not fit their shapes."""
        side = tokens.side
        lengths = {"scales": len(scaled.values), "vectors": sum(plan.vectors.values()), "grids": len(plan.vectors)}
        kinds = {"scales": torch.int8, "vectors": torch.uint8, "grids": torch.float32}
        fits = len(tokens.codes) == plan.layout.tokens and all(
            name in side and len(side[name]) == length and side[name].dtype == kinds[name]
            for name, length in lengths.items()
        )
        for name in plan.kept:
            kind, shape = tokens.shapes[name]
            kept = side.get(f"kept/{name}")
            fits = fits and kept is not None and (str(kept.dtype), tuple(kept.shape)) == (f"torch.{kind}", shape)
        if not fits:
            raise CorruptFileError(
                "codes that do not fit the shapes of the network", where=tokens.architecture,
                got=f"{len(tokens.codes)} tokens", expected=f"{plan.layout.tokens}, and the side of these shapes",
            )  # fmt: skip


def loaded(config: QuantiserConfig, tensors: Mapping[str, Tensor]) -> Quantiser:
    """A quantiser with the codebooks of a file; ready to encode, not to learn on.

    Raises:
        ValueError: for codebooks of another shape.
    """
    quantiser = Quantiser(config)
    if config.kind == "scalar":
        quantiser.reach.copy_(tensors["reach"].float())
        return quantiser.eval()
    expected = (config.groups, config.levels, config.codebook, config.chunk // config.groups)
    if tuple(tensors["codebooks"].shape) != expected:
        raise ValueError(f"codebooks of shape {tuple(tensors['codebooks'].shape)} for {expected}")
    quantiser.place(tensors["codebooks"].float())
    return quantiser.eval()


def _kinds_of(tokens: WeightTokens, chunk: int) -> dict[str, str]:
    """Floating tensor → what it is: the kind of its rows, or `vector`, or `kept`."""
    plan = Plan.of(tokens.shapes, chunk)
    kinds = {piece.tensor: block.kind for block in plan.layout.blocks for piece in block.pieces}
    kinds |= dict.fromkeys(plan.vectors, "vector")
    return {name: kinds[name] for name in tokens.shapes if name in kinds}


def _cast(tensor: Tensor, kind: torch.dtype) -> Tensor:
    """To a kind of fewer bits without running over its end."""
    limit = torch.finfo(kind).max
    return tensor.double().clamp(-limit, limit).to(kind)


def _decibels(signal: float, error: float) -> float | None:
    """None where nothing is lost, or there is nothing to lose."""
    return round(10 * math.log10(signal / error), 2) if signal > 0 and error > 0 else None
