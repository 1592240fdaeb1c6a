"""Tracing: the axis groups of any module, read off the graph that torch.export makes of it."""

import operator
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import tree_leaves, tree_unflatten

from weightgen.errors import ArchitectureError
from weightgen.structure.axes import AxisGraph
from weightgen.structure.labels import Labels, Space
from weightgen.structure.passing import unharmed_in_place
from weightgen.structure.powers import Recorded
from weightgen.structure.propagation import Propagation
from weightgen.structure.rules import Call, answer
from weightgen.structure.symmetries import with_symmetries
from weightgen.structure.units import Placement, axis_graph

INPUT = "an input of the network"
OUTPUT = "an output of the network"
CONSTANT = "a constant of the network"
UNUSED = "not used in the forward pass"


def trace_axes(
    module: nn.Module,
    arguments: Sequence[Any],
    keywords: Mapping[str, Any] | None = None,
    output: Callable[[Any], Any] = lambda results: results,
) -> AxisGraph:
    """The axes of a module's tensors that must be permuted together, and those that cannot be permuted.

    The module is traced in evaluation mode and left as it was. Its inputs and outputs are fixed.

    Args:
        module: any module that `torch.export` can trace; it may stand on the meta device.
        arguments: an example of its inputs; only their shapes and kinds matter, unless the module looks at values.
        keywords: named inputs.
        output: chooses from what the forward returns that which counts as the network's output and is fixed, such as
            `lambda results: results.logits`; everything if left out.

    Raises:
        ArchitectureError: if `torch.export` cannot trace the module.
    """
    program = _exported(module, arguments, keywords)
    try:
        return _Interpreter(module, program).graph(output)
    except _Mutation:
        return _Interpreter(module, program.run_decompositions({})).graph(output)


def _exported(module: nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any] | None) -> ExportedProgram:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, tuple(arguments), dict(keywords or {}), strict=False)
    except Exception as error:
        raise ArchitectureError(
            "torch.export cannot trace the network",
            where=type(module).__name__,
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            remedy="give example inputs that its forward takes, and make it free of control flow that depends on data",
        ) from error
    finally:
        for part in training:
            part.training = True


class _Mutation(Exception):
    """A tensor is written in place so that its labels change; the graph must be made functional first."""


class _Interpreter:
    """Runs the rules over an exported program, node after node."""

    def __init__(self, module: nn.Module, program: ExportedProgram) -> None:
        self.program = program
        self.propagation = Propagation()
        self.placements: list[Placement] = []
        self.names: dict[int, list[str]] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            self.names.setdefault(id(tensor), []).append(name)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        self.tensors: dict[str, Tensor] = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        self.known: dict[int, Labels] = {}
        self.uses: Counter[int] = Counter()
        self.alone: dict[int, int] = {}
        self.replaced: dict[tuple[int, int], list[Placement]] = {}
        self.calls: list[Recorded] = []

    def graph(self, output: Callable[[Any], Any]) -> AxisGraph:
        """The axis graph of the program; `output` as in `trace_axes`."""
        placeholders = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        specifications = dict(zip(placeholders, self.program.graph_signature.input_specs, strict=True))
        for node, specification in specifications.items():
            tensor = self.tensors.get(specification.target or "")
            if tensor is not None:
                nested = any(not isinstance(user.target, torch._ops.OpOverload) for user in node.users)
                self.uses[id(tensor)] += len(node.users) + nested
        inputs = [self._placeholder(node, specification) for node, specification in specifications.items()]
        results = self._run(self.program.graph_module, inputs)
        returned = []
        for labels, specification in zip(results, self.program.graph_signature.output_specs, strict=True):
            if specification.kind is OutputKind.USER_OUTPUT:
                returned.append(labels)
            elif isinstance(labels, Labels):
                self.calls.append(Recorded("written", {"value": labels}, ()))
                # A buffer that is written is what the next call reads.
                written = self.known.get(id(self.tensors.get(specification.target or "")))
                self.propagation.join([labels, *([written] if written is not None else [])], labels.shape)
        structure = self.program.call_spec.out_spec
        for labels in _labels_in(returned if structure is None else output(tree_unflatten(returned, structure))):
            self.propagation.freeze(labels, OUTPUT)
        graph, nodes = axis_graph(self.propagation.constraints, self._placed(), self.shapes)
        parameters = {name: labels for key, labels in self.known.items() for name in self.names[key]}
        return with_symmetries(graph, nodes, parameters, self.calls)

    def _placeholder(self, node: fx.Node, specification: Any) -> Any:
        """The labels of an input of the graph: nodes for what is in the state dict, else fixed."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return value
        tensor = self.tensors.get(specification.target or "")
        if specification.kind is InputKind.USER_INPUT or tensor is None or id(tensor) not in self.names:
            reason = INPUT if specification.kind is InputKind.USER_INPUT else CONSTANT
            return Labels.all_fixed(value.shape, reason)
        if id(tensor) not in self.known:
            labels = self.propagation.parameter(tensor.shape)
            self.known[id(tensor)] = labels
            self.alone[id(labels)] = id(tensor)
            if not tensor.is_floating_point() or tensor.numel() == 0:
                self.propagation.freeze(labels, "a table of numbers" if tensor.numel() else "an empty tensor")
        return self.known[id(tensor)]

    def _run(self, module: fx.GraphModule, inputs: Sequence[Any]) -> Any:
        """The labels of a graph's results from those of its inputs."""
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                found = operator.attrgetter(str(node.target))(module)
                values[node] = Labels.all_fixed(found.shape, CONSTANT) if isinstance(found, Tensor) else found
            elif node.op == "output":
                return fx.map_arg(node.args[0], values.__getitem__)
            else:
                values[node] = self._call(node, values)
        raise ValueError("a graph without an output")

    def _call(self, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
        arguments: Any = fx.map_arg(node.args, values.__getitem__)
        keywords: Any = fx.map_arg(node.kwargs, values.__getitem__)
        if node.target is operator.getitem:
            return arguments[0][arguments[1]]
        inner = [place for place, value in enumerate(arguments) if isinstance(value, fx.GraphModule)]
        if len(inner) == 1 and str(node.target).startswith("wrap_with"):
            return self._run(arguments[inner[0]], arguments[inner[0] + 1 :])
        results = node.meta.get("val")
        shapes = [tuple(value.shape) for value in _flat(results) if isinstance(value, Tensor)]
        if not shapes:
            return results
        if isinstance(node.target, torch._ops.OpOverload):
            schema = node.target._schema
            named = {argument.name: argument.default_value for argument in schema.arguments}
            named.update(zip(named, arguments, strict=False))
            named.update(keywords)
            name = schema.name.removeprefix("aten::")
            pointwise, mutable = torch.Tag.pointwise in node.target.tags, schema.is_mutable
        else:
            named = {**{str(place): value for place, value in enumerate(arguments)}, **keywords}
            name, pointwise, mutable = str(node.target), False, False
        if mutable:
            name = name.removesuffix("_")
        taken = [user.args[1] for user in node.users if user.target is operator.getitem and user.users]
        used = [not isinstance(results, (list, tuple)) or place in taken for place in range(len(shapes))]
        call = Call(name, named, shapes, used, self.propagation, self._grouped)
        empty = any(0 in shape for shape in shapes)
        found = call.fixed("an empty tensor") if empty else answer(call, pointwise)
        if mutable and (not (pointwise or name in _IN_PLACE) or _varies_more(found[0], call.tensors[0])):
            raise _Mutation
        # Older names of a tensor that is overwritten stand for what it became.
        held = mutable and not unharmed_in_place(name)
        self.calls.append(Recorded(f"{name}_" if held else name, named, found))
        if isinstance(results, Tensor):
            return found[0]
        given = iter(found)
        return [next(given) if isinstance(value, Tensor) else value for value in results or ()]

    def _grouped(self, labels: Labels, groups: int) -> Labels:
        """A weight `[groups · rows, columns, …]` by groups; one that nothing else uses gets columns for each group."""
        rows = labels.shape[0] // groups
        shape = (groups, rows, *labels.shape[1:])
        key = self.alone.get(id(labels))
        if key is None or self.uses[key] > 1 or groups == 1 or labels.shape[1] == 1:
            return self.propagation.reshape(labels, shape)
        whole = self.propagation.reshape(labels, shape)
        ids = self.propagation.constraints.fresh((groups, labels.shape[1]))
        self.replaced[key, 1] = [
            Placement(tuple(self.names[key]), 1, ids[group], (0, group * rows, (group + 1) * rows))
            for group in range(groups)
        ]
        kept = [space for space in whole.spaces if 2 not in space.axes]
        return Labels(shape, (*kept, Space((0, 2), ids)), whole.fixed)

    def _placed(self) -> list[Placement]:
        """Where the nodes of the state dict's tensors lie."""
        placements = []
        for key, labels in self.known.items():
            if not self.uses[key]:
                self.propagation.freeze(labels, UNUSED)
            for space in labels.spaces:
                plain = [Placement(tuple(self.names[key]), space.axes[0], space.ids)]
                placements.extend(self.replaced.get((key, space.axes[0]), plain))
        return placements


_IN_PLACE = frozenset({
    "alpha_dropout", "celu", "dropout", "elu", "feature_dropout", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu",
    "relu6", "rrelu", "selu",
})  # fmt: skip
"""Functions of each value by itself that have forms in place and are not tagged as such."""


def _varies_more(after: Labels, before: Labels) -> bool:
    """Whether a tensor, written in place, now differs along an axis along which it held the same values."""
    constant = any((space.ids < 0).any() for space in before.spaces)
    return constant or any(
        size > 1 and axis not in before.fixed and not before.at(axis) and (axis in after.fixed or after.at(axis))
        for axis, size in enumerate(before.shape)
    )


def _flat(value: Any) -> list[Any]:
    return [item for part in value for item in _flat(part)] if isinstance(value, (list, tuple)) else [value]


def _labels_in(value: Any) -> list[Labels]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Labels)]
