"""Zoos of fields: fits many sources into one, and reads them back for processors."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightgen
from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint, Metric
from weightgen.errors import ArchitectureError, DuplicateNameError, MissingDataError, WeightgenError
from weightgen.fields.fitting import Fitted, Fitting, Told, find_kind, fit
from weightgen.fields.signals import Samples, Sampling, Signal, sample
from weightgen.fields.sources import Source
from weightgen.fields.triplane import TriPlaneConfig, reorder
from weightgen.storage import tensor_digest
from weightgen.zoo import Row, Zoo
from weightgen.zoo.catalogue import FILE_NAME

FAMILY = "weightgen/triplane"
TOGETHER = 64
"""Fields that are fitted at once and enter the zoo in one file; a killed fitting loses no more than these."""


@dataclass
class FitReport:
    """What a fitting did.

    Args:
        fitted: names of new fields.
        known: how many were there before.
        failed: name of a source → why it has no field.
        figures: name → value of each new field, in the order of `fitted`.
        steps: of each new field.
    """

    fitted: list[str] = field(default_factory=list)
    known: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    figures: dict[str, list[float]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)

    def text(self) -> str:
        """As lines for people."""
        means = ", ".join(f"mean {name} {value:.4f}" for name, value in self.to_json()["metrics"].items())
        lines = [f"{len(self.fitted):,} fields fitted, {self.known:,} were there{': ' if means else ''}{means}"]
        return "\n".join(lines + [f"failed: {name}: {reason}" for name, reason in self.failed.items()])

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with the means of the figures."""
        means = {name: sum(values) / len(values) for name, values in self.figures.items() if values}
        return {
            "fitted": len(self.fitted), "known": self.known, "failed": self.failed, "metrics": means,
            "steps": sum(self.steps) / max(len(self.steps), 1),
        }  # fmt: skip


def architecture_of(config: TriPlaneConfig) -> Architecture:
    """The recipe of fields of a form."""
    return Architecture.of(FAMILY, **asdict(config))


def config_of(architecture: Architecture) -> TriPlaneConfig:
    """The form of the fields of a recipe.

    Raises:
        ArchitectureError: for the recipe of something else.
    """
    if architecture.family != FAMILY:
        raise ArchitectureError("not a field", where=f"'{architecture}'", expected=f"{FAMILY}?…")
    names = TriPlaneConfig.__dataclass_fields__
    return TriPlaneConfig(**{name: architecture.option(name) for name in names})  # type: ignore[arg-type]


def open_or_create(path: Path | str) -> Zoo:
    """The zoo of a folder, made if there is none."""
    return Zoo(Path(path)) if (Path(path) / FILE_NAME).is_file() else Zoo.create(path)


def fit_zoo(
    zoo: Zoo,
    sources: Sequence[Source],
    kind: str,
    config: TriPlaneConfig,
    fitting: Fitting,
    sampling: Sampling | None = None,
    *,
    seed: int = 0,
    together: int = TOGETHER,
    told: Told | None = None,
) -> FitReport:
    """Fits a field to each source and adds it to the zoo; what is there already is passed over.

    Every field starts from random numbers of its own, which `seed` and its name decide. A source that cannot be read
    is reported and passed over; a fitting that was killed goes on with the first source that is not in the zoo.

    Raises:
        DuplicateNameError: if the zoo holds another field under a source's name.
        UnknownNameError: for an unknown kind.
    """
    find_kind(kind)
    sampling = sampling or Sampling()
    report = FitReport()
    settings = {"kind": kind, "seed": seed, "steps": fitting.steps, **_flat(sampling)}
    new = _new(zoo, sources, architecture_of(config), settings, report)
    for begin in range(0, len(new), together):
        readable: list[tuple[Source, Signal]] = []
        for source in new[begin : begin + together]:
            try:
                readable.append((source, source.read()))
            except WeightgenError as error:
                report.failed[source.name] = str(error)
        if not readable:
            continue
        chosen = [source for source, _ in readable]
        seeds = [_seed(seed, source.name) for source in chosen]

        def tell(step: int, steps: int, text: str, begin: int = begin) -> None:
            if told is not None:
                done = begin * steps + step * min(together, len(new) - begin)
                told(done // steps, len(new), text)

        samples = sample([signal for _, signal in readable], seeds, sampling)
        fitted = fit(config, kind, samples, seeds, fitting, told=tell)
        made = {"fitting": asdict(fitting), "sampling": asdict(sampling), "code": weightgen.__version__}
        checkpoints = _checkpoints(config, readable, samples, fitted, settings, made)
        zoo.add(checkpoints, name=[source.name for source in chosen])
        report.fitted += [source.name for source in chosen]
        report.steps += fitted.steps.tolist()
        for name, values in fitted.figures.items():
            report.figures.setdefault(name, []).extend(values.tolist())
    return report


def _new(
    zoo: Zoo, sources: Sequence[Source], architecture: Architecture, settings: dict[str, Any], report: FitReport
) -> list[Source]:
    """The sources that have no field yet."""
    rows = {row.name: row for row in zoo}
    new = []
    for source in sources:
        row = rows.get(source.name)
        if row is None:
            new.append(source)
            continue
        there = {name: row.hyperparameters.get(name) for name in settings}
        if row.architecture != str(architecture) or there != settings:
            wrong = [name for name, value in settings.items() if there[name] != value]
            raise DuplicateNameError(
                f"the zoo holds another field of '{source.name}'", where=zoo.path,
                got=", ".join(f"{name} {there[name]}" for name in wrong) or row.architecture,
                expected=", ".join(f"{name} {settings[name]}" for name in wrong) or str(architecture),
                remedy="choose another --out",
            )  # fmt: skip
        report.known += 1
    return new


def _checkpoints(
    config: TriPlaneConfig,
    readable: Sequence[tuple[Source, Signal]],
    samples: Samples,
    fitted: Fitted,
    settings: dict[str, Any],
    made: dict[str, Any],
) -> list[Checkpoint]:
    found = []
    architecture = architecture_of(config)
    for index, (source, signal) in enumerate(readable):
        digest = tensor_digest(samples.probes[index])
        metrics = [Metric(name, values[index].item(), "validation", digest) for name, values in fitted.figures.items()]
        facts = {**settings, **source.facts, "steps_taken": int(fitted.steps[index]), **_place(signal)}
        if source.label is not None:
            facts["class"] = source.label
        card = Card(
            task=settings["kind"], metrics=tuple(metrics), hyperparameters=facts, origin="fitted", run=source.name,
            split=source.split, made_with=made,
        )  # fmt: skip
        tensors = {name: tensor[index].clone() for name, tensor in fitted.tensors.items()}
        found.append(Checkpoint(architecture, tensors, card))
    return found


def _place(signal: Signal) -> dict[str, float]:
    """Where the signal stood before it was brought into the sphere."""
    centre, scale = getattr(signal, "centre", None), getattr(signal, "scale", None)
    if centre is None or scale is None:
        return {}
    return {
        "scale": float(scale),
        **{f"centre_{axis}": float(value) for axis, value in zip("xyz", centre, strict=True)},
    }


def _flat(sampling: Sampling) -> dict[str, Any]:
    return {"sampled": sampling.points, "deviations": " ".join(map(str, sampling.deviations))}


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest(), "big")


@dataclass(frozen=True)
class FieldSet:
    """Fields of one form, as processors read them.

    Args:
        names: of each.
        planes: `[fields, 3, channels, rows, columns]`, in the canonical order.
        decoders: `[fields, values]`, all weights and biases of each decoder.
        labels: int64 `[fields]`, indices of `classes`; -1 where the class is not known.
        classes: the names of the classes, sorted.
        splits: of each: `train`, `validation`, `test` or an empty text.
        config: their form, with the canonical order.
        kind: `udf`, `sdf`, `occupancy` or `radiance`.
        rows: what the zoo knows of each.
    """

    names: list[str]
    planes: Tensor
    decoders: Tensor
    labels: Tensor
    classes: list[str]
    splits: list[str]
    config: TriPlaneConfig
    kind: str
    rows: list[Row]

    def where(self, split: str) -> Tensor:
        """The indices of a split, int64."""
        return torch.tensor([index for index, one in enumerate(self.splits) if one == split], dtype=torch.int64)


def read_fields(zoo: Zoo, expression: str = "", classes: Sequence[str] | None = None) -> FieldSet:
    """All fields of a zoo, or those for which an expression holds.

    Args:
        classes: the names of the classes, if they are fixed already.

    Raises:
        MissingDataError: if there are none.
        ArchitectureError: if they are not all of one form: processors compare cell with cell.
    """
    rows = [row for row in zoo.query(expression) if row.architecture.startswith(FAMILY)]
    if not rows:
        raise MissingDataError(
            "no fields there", where=zoo.path, remedy="fit some: weightgen fields fit PATH --out ZOO"
        )
    configs = [config_of(Architecture.parse(text)) for text in {row.architecture: None for row in rows}]
    first = configs[0]
    for other in configs[1:]:
        if {**asdict(other), "order": ""} != {**asdict(first), "order": ""}:
            raise ArchitectureError(
                "fields of several forms cannot be read together", where=zoo.path, got=str(architecture_of(other)),
                expected=str(architecture_of(first)), remedy="choose those of one architecture",
            )  # fmt: skip
    kinds = sorted({str(row.task) for row in rows})
    if len(kinds) > 1:
        raise ArchitectureError("fields of several kinds", where=zoo.path, got=", ".join(kinds), expected="one kind")
    states = [row.load().state_dict() for row in rows]
    orders = [str(config_of(Architecture.parse(row.architecture)).order) for row in rows]
    planes = torch.stack([reorder(state["planes"], order) for state, order in zip(states, orders, strict=True)])
    decoders = torch.stack(
        [torch.cat([value.flatten() for name, value in state.items() if name != "planes"]) for state in states]
    )
    words = [row.hyperparameters.get("class") for row in rows]
    known = list(classes) if classes is not None else sorted({str(word) for word in words if word is not None})
    labels = torch.tensor([known.index(str(word)) if str(word) in known else -1 for word in words])
    config = TriPlaneConfig(**{**asdict(first), "order": TriPlaneConfig().order})
    return FieldSet(
        [row.name for row in rows], planes.float(), decoders.float(), labels, known,
        [row.split or "" for row in rows], config, kinds[0], rows,
    )  # fmt: skip
