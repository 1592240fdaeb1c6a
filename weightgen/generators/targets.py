"""Which parameters of a module a hypernetwork writes."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from weightgen.errors import WeightgenError
from weightgen.registry import unknown_name

Selection = str | Sequence[str] | type[nn.Module] | Callable[[str, nn.Parameter], bool] | None
"""A pattern such as `layer*.weight`, several of them, a type of layer, or a predicate of name and parameter; None: all.
"""


def select(module: nn.Module, parameters: Selection = None) -> dict[str, nn.Parameter]:
    """Name → parameter of those selected, in the module's order; one that is shared stands under its first name.

    Raises:
        UnknownNameError: for a pattern that matches nothing; it names the near ones.
        WeightgenError: for parameters that cannot be written: shared ones selected in part, or not floating.
    """
    every = dict(module.named_parameters(remove_duplicate=False))
    if not every:
        raise WeightgenError("the module has no parameters", where=type(module).__name__)
    lazy = [name for name, parameter in every.items() if isinstance(parameter, nn.UninitializedParameter)]
    if lazy:
        raise WeightgenError(
            "a parameter without a shape yet", where=lazy[0], remedy="run the module once, so that its layers know it"
        )
    names = _names(module, every, parameters)
    if not names:
        raise WeightgenError("no parameter is selected", where=type(module).__name__, got=_told(parameters))
    chosen = {id(every[name]) for name in names}
    for name, parameter in every.items():
        if id(parameter) in chosen and name not in names:
            inside = next(one for one in names if every[one] is parameter)
            raise WeightgenError(
                f"the parameter '{inside}' is shared with '{name}', which is not selected",
                where=type(module).__name__, remedy="select both names or neither",
            )  # fmt: skip
    found: dict[str, nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        if id(parameter) in chosen:
            if not parameter.is_floating_point():
                raise WeightgenError(f"the parameter '{name}' is no floating tensor", got=parameter.dtype)
            found[name] = parameter
    return found


def _names(module: nn.Module, every: dict[str, nn.Parameter], parameters: Selection) -> set[str]:
    if parameters is None:
        return set(every)
    if isinstance(parameters, str):
        return _matching(module, every, parameters)
    if isinstance(parameters, type):
        layers = [name for name, layer in module.named_modules(remove_duplicate=False) if isinstance(layer, parameters)]
        if not layers:
            kinds = {type(layer).__name__ for layer in module.modules()}
            raise unknown_name("type of layer", parameters.__name__, kinds)
        return {name for name in every if name.rpartition(".")[0] in set(layers)}
    if callable(parameters):
        return {name for name, parameter in every.items() if parameters(name, parameter)}
    return {name for pattern in parameters for name in _matching(module, every, pattern)}


def _matching(module: nn.Module, every: dict[str, nn.Parameter], pattern: str) -> set[str]:
    found = {name for name in every if fnmatch.fnmatchcase(name, pattern)}
    if found:
        return found
    buffers = dict(module.named_buffers())
    if hit := next((name for name in buffers if fnmatch.fnmatchcase(name, pattern)), None):
        raise WeightgenError(
            f"'{hit}' is a buffer, not a parameter", got=f"{pattern!r}, a {buffers[hit].dtype} buffer",
            expected="a pattern of parameters", remedy="buffers are left to the network itself",
        )  # fmt: skip
    raise unknown_name("parameter (no name matches the pattern)", pattern, every)


def _told(parameters: Any) -> str:
    return getattr(parameters, "__name__", repr(parameters))
