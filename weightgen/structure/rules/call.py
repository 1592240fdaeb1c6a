"""Rules: for each operator of the traced graph a function that says what its call means for the axes.

A rule takes a Call and gives the Labels of the result, or a tuple of them. To teach the tracer an operator is to write

    @rule("softmax", "log_softmax")
    def _softmax(call):
        return call.propagation.normalise(call["self"], [call["dim"]])

in a module of this package; names are those of aten without overload and without the underscore of in-place forms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weightgen.registry import Registry
from weightgen.structure.labels import Labels, labels_among
from weightgen.structure.propagation import Propagation

Result = Labels | Sequence[Labels]


@dataclass(frozen=True)
class Call:
    """One call of an operator in the traced graph.

    Args:
        operator: its name in aten, such as `conv2d`.
        arguments: by the names of its schema, defaults included; Labels in the place of tensors.
        shapes: of the results, one for each.
        used: whether anything uses a result, for each; what nobody uses binds nothing.
        propagation: the patterns to answer with.
        grouped: labels of a weight `[groups · rows, columns, …]` → labels `[groups, rows, columns, …]` in which every
            group has columns of its own.
    """

    operator: str
    arguments: Mapping[str, Any]
    shapes: Sequence[tuple[int, ...]]
    used: Sequence[bool]
    propagation: Propagation
    grouped: Callable[[Labels, int], Labels]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def get(self, *names: str, default: Any = None) -> Any:
        """The first argument that the schema has of these names."""
        return next((self.arguments[name] for name in names if name in self.arguments), default)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return self.shapes[0]

    @property
    def tensors(self) -> list[Labels]:
        """The labels of all tensors among the arguments, lists included."""
        return labels_among(self.arguments)

    def fixed(self, reason: str) -> list[Labels]:
        """Results none of whose axes may be permuted."""
        return [Labels.all_fixed(shape, reason) for shape in self.shapes]


Rule = Callable[[Call], Result]

rules: Registry[Rule] = Registry("rule of an operator")


def rule(*operators: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operators of aten."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            rules.add(operator, function)
        return function

    return register


def answer(call: Call, pointwise: bool) -> list[Labels]:
    """The labels of a call's results by its rule; an operator without a rule fixes all that it touches."""
    if call.operator in rules:
        result = rules[call.operator](call)
    elif pointwise:
        result = call.propagation.join(call.tensors, call.shape)
    else:
        reason = f"the operator {call.operator} has no rule"
        for labels in call.tensors:
            call.propagation.freeze(labels, reason)
        if not any(labels.spaces for labels in call.tensors):
            # Nothing was lost here, the reason lies further up.
            reason = next((why for labels in call.tensors for why in labels.fixed.values()), "a constant")
        result = call.fixed(reason)
    return [result] if isinstance(result, Labels) else list(result)
