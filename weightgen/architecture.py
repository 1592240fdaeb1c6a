"""Architecture: a serialisable recipe for an `nn.Module`, such as `weightgen/cnn?channels=8,16&input=1,28,28`."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightgen import libraries
from weightgen.errors import ArchitectureError
from weightgen.families import Value, families
from weightgen.registry import unknown_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightgen.structure.axes import AxisGraph, AxisGroup

Shapes = Mapping[str, tuple[int, ...]]

UNKNOWN = "unknown"
"""The family of networks of which nothing but names and shapes is known: `unknown?shapes=SIGNATURE`."""

PLAIN_STACKS = frozenset({"weightgen/cnn", "weightgen/mlp"})
"""Families of linear and convolutional layers one behind the other, with an activation between them."""

MAXIMUM_PARAMETERS = 10_000_000_000
"""Recipes beyond this are refused before memory is taken."""

GROUP_SIZES = "group_sizes"
"""The option of every family that gives another size to each of its axis groups, those of one kind together, in order.

It is what a network of another size has whose family has no options for its sizes.
"""

FILE_OPTIONS = frozenset({"cache_dir", "checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"})
"""Options of timm that open files or fetch them; a recipe in a foreign file must not."""


@dataclass(frozen=True)
class Architecture:
    """A recipe in canonical form: options sorted, those equal to the family's default left out.

    Make one with `Architecture.parse("weightgen/mlp?hidden=32,32")` or
    `Architecture.of("timm/resnet18", num_classes=10)`.
    Two equal Architectures build modules with the same tensors; `str()` gives the recipe back.
    """

    family: str
    options: tuple[tuple[str, Value], ...] = ()

    @classmethod
    def of(cls, family: str, **options: Value) -> "Architecture":
        """An Architecture from Python values.

        Raises:
            UnknownNameError: for a family or option that does not exist.
            ArchitectureError: for a value of the wrong kind.
        """
        if family == UNKNOWN:
            if set(options) != {"shapes"} or not re.fullmatch(r"[0-9a-f]{16}", str(options["shapes"])):
                raise ArchitectureError(
                    "cannot read the architecture", where=family, got=f"options {options}",
                    expected="unknown?shapes= and the 16 letters of a signature",
                )  # fmt: skip
            return cls(family, (("shapes", str(options["shapes"])),))
        if GROUP_SIZES in options:
            sizes = _like(options.pop(GROUP_SIZES), (), f"{family}?{GROUP_SIZES}")
            _check(family, GROUP_SIZES, sizes)
            base = cls.of(family, **options)
            return cls(family, tuple(sorted([*base.options, (GROUP_SIZES, sizes)]))) if sizes else base
        if family.startswith("timm/"):
            for name in FILE_OPTIONS & set(options):
                raise ArchitectureError(
                    "an architecture names no files or downloads",
                    where=family,
                    got=f"the option '{name}'",
                    remedy="leave it out; weights come from a checkpoint",
                )
            return cls(family, tuple(sorted(options.items())))
        if family.startswith(libraries.FAMILIES):
            libraries.check(options)
            return cls(family, tuple(sorted(options.items())))
        if family not in families:
            raise unknown_name("architecture family", family, [*families, "timm/resnet18", "transformers/BertModel"])
        defaults = families[family].defaults
        kept = {}
        for name, value in sorted(options.items()):
            if name not in defaults:
                raise unknown_name(f"option of {family}", name, defaults)
            value = _like(value, defaults[name], f"{family}?{name}")
            _check(family, name, value)
            if value != defaults[name]:
                kept[name] = value
        return cls(family, tuple(kept.items()))

    @classmethod
    def unknown(cls, shapes: Shapes) -> "Architecture":
        """What stands for the recipe of a network that has none: it can be compared, and cannot be built."""
        return cls(UNKNOWN, (("shapes", _signature(sorted(shapes.items()))),))

    @property
    def known(self) -> bool:
        """Whether there is a recipe; of a network without one only names and shapes are known."""
        return self.family != UNKNOWN

    @classmethod
    def parse(cls, recipe: str) -> "Architecture":
        """An Architecture from its text `family?option=value&…`; lists are comma-separated.

        Raises:
            UnknownNameError: for a family or option that does not exist.
            ArchitectureError: for text that is not of this form.
        """
        family, _, query = recipe.strip().partition("?")
        options: dict[str, Value] = {}
        for part in filter(None, query.split("&")):
            name, equals, text = part.partition("=")
            if not equals or not re.fullmatch(r"[\w.]+", name) or name in options:
                raise ArchitectureError(
                    "cannot read the architecture",
                    where=f"'{recipe}'",
                    got=f"'{part}'",
                    expected="family?option=value&option=value, each option once",
                )
            # A signature may well look like a number.
            options[name] = text if family == UNKNOWN else _value(text)
        return cls.of(family, **options)

    def __str__(self) -> str:
        return self._recipe

    @functools.cached_property
    def _recipe(self) -> str:
        options = "&".join(f"{name}={_text(value)}" for name, value in self.options)
        return f"{self.family}?{options}" if options else self.family

    def option(self, name: str) -> Value:
        """The value of an option, given or default."""
        given = dict(self.options)
        return given[name] if name in given else families[self.family].defaults[name]

    def replace(self, **options: Value) -> "Architecture":
        """The same Architecture with some options changed."""
        return Architecture.of(self.family, **{**dict(self.options), **options})

    def build(self) -> "nn.Module":
        """A fresh module with random weights.

        Raises:
            ArchitectureError: if the options do not make a network, or the architecture is unknown.
        """
        if not self.known:
            raise ArchitectureError(
                "the architecture is unknown: names and shapes of the tensors do not say what is computed with them",
                where=f"'{self}'", remedy="build the module yourself and load checkpoint.state_dict() into it",
            )  # fmt: skip
        base, sizes = self.without_group_sizes()
        if sizes:
            from weightgen.sizes.groups import resize

            module = base.build()
            resize(module, base.axes(), sizes, where=str(base))
            return module
        try:
            if self.family.startswith("timm/"):
                import timm

                name = self.family.removeprefix("timm/")
                if not timm.is_model(name):
                    raise unknown_name("timm model", name, timm.list_models())
                return timm.create_model(name, pretrained=False, **dict(self.options))
            if self.family.startswith(libraries.FAMILIES):
                return libraries.build(self.family, dict(self.options))
            family = families[self.family]
            return family.build(**{**family.defaults, **dict(self.options)})
        except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
            raise ArchitectureError("cannot build the architecture", where=f"'{self}'", got=str(error)) from error

    def on_meta(self) -> "nn.Module":
        """A module as `build` makes it whose tensors have shapes and take no memory."""
        import torch

        with torch.device("meta"):
            return self.build()

    def without_group_sizes(self) -> "tuple[Architecture, tuple[int, ...]]":
        """The Architecture as its family has it, and the sizes of its axis groups if they are others."""
        options = dict(self.options)
        sizes = options.pop(GROUP_SIZES, ())
        if not sizes:
            return self, ()
        return Architecture(self.family, tuple(options.items())), sizes  # type: ignore[return-value]

    def resized(self, sizes: "Mapping[int, int]", graph: "AxisGraph | None" = None) -> "Architecture":
        """The Architecture of the network with other sizes of its axis groups.

        The family's own options are used where they can say it, else `group_sizes`.

        Args:
            sizes: number of the group in `axes().groups` → new size, of the groups that change; kin all alike.
            graph: `axes()` if it is known already, so that nothing is traced.

        Raises:
            ArchitectureError: for a size below 1, kin of different sizes, or a network that cannot be traced.
        """
        from weightgen.sizes.groups import resized_recipe

        return resized_recipe(self, sizes, graph)

    def example_inputs(self) -> tuple["Tensor", ...]:
        """Arguments of the network's forward, of the right shapes, all zeros: one image.

        Raises:
            ArchitectureError: for a network that does not say what it reads.
        """
        return _examples(self, self.build())

    def axes(self) -> "AxisGraph":
        """Which axes of the tensors belong together, traced from the module when it is first asked for.

        Raises:
            ArchitectureError: if the module cannot be traced.
        """
        return _axes(self)

    def groups(self) -> tuple["AxisGroup", ...]:
        """The axis groups; of plain stacks without tracing, which takes seconds to load and finds the same.

        Raises:
            ArchitectureError: if the module cannot be traced.
        """
        if self.family not in PLAIN_STACKS:
            return self.axes().groups
        from weightgen.structure.axes import axis_groups

        return tuple(axis_groups(self.parameter_shapes(), str(self.option("activation"))))

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name → (kind such as `float32`, shape) of every tensor of the state dict of a fresh module, in order."""
        return {
            name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            for name, tensor in self.on_meta().state_dict().items()
        }

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every tensor of the state dict, in order, without taking memory for them."""
        return dict(_shapes(self))

    @property
    def parameters(self) -> int:
        """How many trainable values the network has."""
        return _parameters(self)

    @property
    def signature(self) -> str:
        """A hash of all names and shapes: equal for networks whose tensors can be exchanged."""
        return str(self.option("shapes")) if not self.known else _signature(list(self.parameter_shapes().items()))


def _signature(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=1024)
def _shapes(architecture: Architecture) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(tensor.shape)) for name, tensor in architecture.on_meta().state_dict().items())


@functools.lru_cache(maxsize=64)
def _axes(architecture: Architecture) -> "AxisGraph":
    import torch

    try:
        # Shapes are all that matters, so that no memory is needed.
        with torch.device("meta"):
            return _traced(architecture, architecture.build())
    except (ArchitectureError, NotImplementedError):
        # Some networks look at values of their tensors.
        with torch.random.fork_rng(devices=[]):
            return _traced(architecture, architecture.build())


def _traced(architecture: Architecture, module: "nn.Module") -> "AxisGraph":
    from weightgen.structure.tracing import trace_axes

    return trace_axes(module, _examples(architecture, module))


def _examples(architecture: Architecture, module: "nn.Module") -> tuple["Tensor", ...]:
    import torch

    options = dict(architecture.options)
    if hasattr(module, "example_inputs"):
        return module.example_inputs()  # type: ignore[operator]
    if architecture.family in families:
        size = architecture.option("input")
    elif architecture.family.startswith("transformers/"):
        return libraries.examples(module)
    else:
        size = getattr(module, "pretrained_cfg", {}).get("input_size")
    if not isinstance(size, tuple):
        raise ArchitectureError("what the network reads is not known", where=f"'{architecture}'")
    channels, *image = size
    if architecture.family not in families:
        channels = options.get("in_chans", channels)
        side = options.get("img_size", tuple(image))
        image = side if isinstance(side, tuple) else (side, side)
    return (torch.zeros(1, channels, *image),)  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1024)
def _parameters(architecture: Architecture) -> int:
    return sum(parameter.numel() for parameter in architecture.on_meta().parameters())


def _check(family: str, name: str, value: Value) -> None:
    numbers = value if isinstance(value, tuple) else (value,)
    where = f"{family}?{name}"
    if (name == GROUP_SIZES or name in families[family].positive) and any(number < 1 for number in numbers):  # type: ignore[operator]
        raise ArchitectureError("a size must be at least 1", where=where, got=_text(value))
    if any(isinstance(number, int) and abs(number) > MAXIMUM_PARAMETERS for number in numbers):
        raise ArchitectureError("a size is beyond all bounds", where=where, got=_text(value))
    if name == "input" and len(numbers) != 3:
        raise ArchitectureError("an input is channels,height,width", where=where, got=_text(value))
    if name == "activation":
        from weightgen.networks import ACTIVATIONS

        if value not in ACTIVATIONS:
            raise unknown_name("activation", str(value), ACTIVATIONS)


def _like(value: Any, default: Value, where: str) -> Value:
    """`value` as the kind of its default: a lone number is a list of one where a list belongs."""
    if isinstance(default, tuple):
        items = value if isinstance(value, (tuple, list)) else () if value == "" else (value,)
        if all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            return tuple(items)
    elif isinstance(value, type(default)) and not (isinstance(value, bool) and not isinstance(default, bool)):
        return value
    raise ArchitectureError(
        "an option of the wrong kind", where=where, got=repr(value), expected=f"something like {_text(default)}"
    )


def _value(text: str) -> Value:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+(,-?\d+)+,?|-?\d+,", text):
        return tuple(int(item) for item in text.split(",") if item)
    if re.fullmatch(r"-?\d+\.\d*(e-?\d+)?|-?\d+e-?\d+", text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
