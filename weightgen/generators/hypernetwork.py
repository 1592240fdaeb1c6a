"""Hypernetwork: any `nn.Module` with weights that are a function of a condition, and that train reliably.

After "Magnitude Invariant Parametrizations Improve Hypernetwork Learning", https://arxiv.org/abs/2304.07645.

Notation: z is the condition in [0, 1]^D, E its encoding of constant norm (`conditions.py`), h the hypernetwork proper:
a multilayer perceptron (the body) and a linear head (`heads.py`). The network runs with θ(z) = θ₀ + h(E(z)), where θ₀
are the network's own parameters, under their own names. In the plain form θ(z) = b + h(z) with b = 0 at first: its
weights and what it learns from a step shrink with |z|.

Here θ₀ begins as the network is and h at 0, where the reference code draws both anew at kaiming size: θ(z) has then the
network's own initial variance, or its pretrained values, at every z. That θ₀ is not enlarged is what makes it faster.
"""

import contextlib
import copy
import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.attention
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint
from weightgen.errors import WeightgenError
from weightgen.generators.conditions import ConditionSpace, Spec
from weightgen.generators.heads import ChunkedHead, FullHead, LowRankHead
from weightgen.generators.targets import Selection, select


@dataclass(frozen=True)
class HypernetworkConfig:
    """The form of a hypernetwork; `scripts/benchmarks/hypernetwork` measures the forms against each other.

    Args:
        hidden: widths of the body; the last is the number of features that the head reads.
        rank: rank of the change of each matrix; None for a full head.
        chunk: values in a chunk of a chunked head; None for a full head.
        input_encoding: whether the body reads E(z) rather than z.
        output_encoding: whether θ₀ begins as the network itself rather than at 0.
        initial: `own`, θ₀ as the network is and h = 0; `published`, as the reference code: θ₀ and h kaiming normal.
    """

    hidden: tuple[int, ...] = (16, 128)
    rank: int | None = None
    chunk: int | None = None
    input_encoding: bool = True
    output_encoding: bool = True
    initial: Literal["own", "published"] = "own"

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise WeightgenError("a hypernetwork needs a hidden layer", got=list(self.hidden))
        if self.rank is not None and self.chunk is not None:
            raise WeightgenError("a head is chunked or of low rank", got=f"chunk {self.chunk}, rank {self.rank}")
        for name, size in (("rank", self.rank), ("chunk", self.chunk)):
            if size is not None and size < 1:
                raise WeightgenError(f"the {name} is too small", got=size, expected="at least 1")
        published = self.initial == "published" or not self.output_encoding
        if self.initial not in ("own", "published") or (published and (self.rank or self.chunk)):
            raise WeightgenError("the published initial values are those of a full head", got=self)


class Hypernetwork(nn.Module):
    """A network whose parameters depend on a condition; made by `weightgen.hypernetwork`.

    Attributes:
        network: the primary network; its selected parameters are θ₀, all others are trained as they are.
        targets: the names of the parameters that are written.
        space: the conditions.
    """

    def __init__(
        self,
        network: nn.Module,
        space: ConditionSpace,
        targets: Mapping[str, nn.Parameter],
        config: HypernetworkConfig,
        architecture: Architecture | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.space = space
        # A dot cannot stand in the name of a module.
        self.encoders = nn.ModuleDict({name.replace(".", "/"): encoder for name, encoder in space.texts.items()})
        self.config = config
        self.architecture = architecture
        self.targets = list(targets)
        shapes = {name: tuple(parameter.shape) for name, parameter in targets.items()}
        sizes = [space.width(config.input_encoding), *config.hidden]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(sizes):
            linear = nn.Linear(narrow, wide)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="leaky_relu", mode="fan_out")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.LeakyReLU()]
        self.body = nn.Sequential(*layers)
        if config.rank is not None:
            self.head: nn.Module = LowRankHead(shapes, sizes[-1], config.rank)
        elif config.chunk is not None:
            self.head = ChunkedHead(shapes, sizes[-1], config.chunk)
        else:
            self.head = FullHead(shapes, sizes[-1])
        self._start(targets)
        some = next(iter(targets.values()))
        self.encoders.to(some.device)
        self.body.to(some.device)
        self.head.to(some.device)

    @property
    def base(self) -> dict[str, nn.Parameter]:
        """θ₀: name → parameter of the primary network."""
        # Not get_parameter, which turns away the plain tensors that torch.func puts in a parameter's place.
        return {name: operator.attrgetter(name)(self.network) for name in self.targets}

    def tensors(self, condition: Any) -> dict[str, Tensor]:
        """θ of one condition, name → `shape`, or of several, name → `[n, *shape]`; differentiable.

        Raises:
            WeightgenError: for a condition out of its range or of the wrong shape.
        """
        return self.tensors_at(self.space.values(condition))

    def tensors_at(self, z: Tensor) -> dict[str, Tensor]:
        """As `tensors`, for z `[D]` or `[n, D]` in units of the ranges."""
        weight = self.body[0].weight
        features = self.body(self.space.encode(z.to(weight), self.config.input_encoding))
        base = self.base
        return {name: base[name] + change.to(base[name].dtype) for name, change in self.head(features).items()}

    def forward(self, condition: Any, *inputs: Any, grid: bool = False, **options: Any) -> Any:
        """The primary network's answer under a condition, for each input its own, or for all conditions on all inputs.

        Args:
            condition: what `ConditionSpace.values` takes. One condition: the network is run once on `inputs`. n
                conditions: the inputs are n examples, `[n, …]`, and each is read by the network of its own condition.
            inputs: what the network takes.
            grid: every one of n conditions reads all inputs; outputs get a leading axis of n.
            options: further named arguments of the network.

        Raises:
            WeightgenError: for a condition out of its range, a number of conditions that is not that of examples, a
                batch norm that is to learn its statistics from single examples, or several conditions of a network
                that looks at values or changes state in place other than its buffers in training.
        """
        return self.forward_at(self.space.values(condition), *inputs, grid=grid, **options)

    def forward_at(self, z: Tensor, *inputs: Any, grid: bool = False, **options: Any) -> Any:
        """As `forward`, for z `[D]` or `[n, D]` in units of the ranges."""
        tensors = self.tensors_at(z)
        if z.dim() == 1:
            answer = functional_call(self.network, tensors, inputs, options)
            return tree_map(lambda tensor: tensor.unsqueeze(0), answer) if grid else answer
        if not grid:
            self._check_examples(len(z), inputs)
        buffers = self._copies(len(z))

        def one(tensors: dict[str, Tensor], buffers: dict[str, Tensor], *inputs: Any) -> Any:
            if grid:
                return functional_call(self.network, {**tensors, **buffers}, inputs, options)
            alone = tree_map(lambda tensor: tensor.unsqueeze(0), inputs)
            answer = functional_call(self.network, {**tensors, **buffers}, alone, options)
            return tree_map(lambda tensor: tensor.squeeze(0), answer)

        places = (0, 0, *[None if grid else 0] * len(inputs))
        several = vmap(one, in_dims=places, randomness="different")
        with _batched_attention(z.device):
            # Compiled code has no room for the handler, and its own errors say where they are.
            given = (tensors, buffers, *inputs)
            answer = several(*given) if torch.compiler.is_compiling() else self._named(several, given)
        self._pool(buffers)
        return answer

    @torch.no_grad()
    def weights(self, condition: Any) -> Checkpoint:
        """The network of one condition as a Checkpoint, which knows nothing of the hypernetwork.

        Raises:
            WeightgenError: for several conditions, or if it is not known what architecture the network is of.
        """
        return self.weights_at(self.space.values(condition))

    @torch.no_grad()
    def weights_at(self, z: Tensor) -> Checkpoint:
        """As `weights`, for z `[D]`."""
        if self.architecture is None:
            raise WeightgenError(
                "the network has no recipe, which a Checkpoint needs", where=type(self.network).__name__,
                remedy='make it from one, hypernetwork("timm/resnet18", …), or use tensors()',
            )  # fmt: skip
        if z.dim() != 1:
            raise WeightgenError("a Checkpoint is one network", got=f"{len(z)} conditions", expected="one condition")
        written = {id(self.base[name]): tensor for name, tensor in self.tensors_at(z).items()}
        parameters = dict(self.network.named_parameters(remove_duplicate=False))
        state = {
            name: written.get(id(parameters.get(name)), tensor).detach().cpu().clone()
            for name, tensor in self.network.state_dict().items()
        }
        made = {"generator": "hypernetwork", "condition": self.space.describe(z)}
        return Checkpoint(self.architecture, state, Card(origin="generated", made_with=made))

    @torch.no_grad()
    def _start(self, targets: Mapping[str, nn.Parameter]) -> None:
        """The initial values of the published forms; in the library's own there is nothing to do."""
        config = self.config
        if config.initial == "own" and config.output_encoding:
            return
        assert isinstance(self.head, FullHead)
        if config.initial == "published" or not config.output_encoding:
            self.head.start_published()
        for name, parameter in targets.items():
            if parameter.dim() > 1 and config.output_encoding:
                nn.init.kaiming_normal_(parameter, nonlinearity="leaky_relu")
            elif parameter.dim() > 1 or name.endswith("bias"):
                # The scales of norms keep their ones: without them nothing passes.
                parameter.zero_()

    def _check_examples(self, count: int, inputs: tuple[Any, ...]) -> None:
        for tensor in inputs:
            if not isinstance(tensor, Tensor) or tensor.dim() == 0 or len(tensor) != count:
                raise WeightgenError(
                    "not one example for each condition", got=list(getattr(tensor, "shape", [type(tensor).__name__])),
                    expected=f"[{count}, …]", remedy="with grid=True every condition reads all examples",
                )  # fmt: skip
        if self.network.training:
            for name, layer in self.network.named_modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training:
                    raise WeightgenError(
                        "a batch norm cannot learn from one example a condition", where=name,
                        remedy="give one condition a step, set grid=True, call eval(), or use a group norm",
                    )  # fmt: skip

    def _named(self, several: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """Calls `several`; what the network does that no vmap can do becomes an error that says what to do instead.

        Tensors that the network keeps in plain attributes are put back: those of a vmap mean nothing outside of it.
        """
        before = [(vars(module), dict(vars(module))) for module in self.network.modules()]
        try:
            return several(*given)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise WeightgenError(
                "the network does not run under several conditions at once", where=type(self.network).__name__,
                got=str(error).splitlines()[0][:200],
                remedy="check the inputs; a network that changes state in place other than its buffers in training, "
                "or looks at values, takes one condition a call",
            ) from error  # fmt: skip
        finally:
            for now, then in before:
                left = [
                    name for name, value in now.items() if isinstance(value, Tensor) and then.get(name) is not value
                ]
                for name in left:
                    del now[name]
                now.update({name: then[name] for name in left if name in then})

    def _copies(self, count: int) -> dict[str, Tensor]:
        """A copy of each buffer for each condition: norms change theirs in place, which shared ones do not allow."""
        if not self.network.training:
            return {}
        return {name: buffer.expand(count, *buffer.shape).clone() for name, buffer in self.network.named_buffers()}

    @torch.no_grad()
    def _pool(self, copies: dict[str, Tensor]) -> None:
        """Buffers become the mean over conditions of what each made of them; integers count a step once."""
        for name, copies_of_one in copies.items():
            pooled = copies_of_one.mean(0) if copies_of_one.is_floating_point() else copies_of_one[0]
            owner, _, own_name = name.rpartition(".")
            # Replaced, not overwritten: a backward pass of an earlier call may still need the old values.
            setattr(self.network.get_submodule(owner), own_name, pooled)


def hypernetwork(
    model: nn.Module | Architecture | str,
    condition: Mapping[str, Spec] | Spec | int,
    parameters: Selection = None,
    *,
    rank: int | None = None,
    chunk: int | None = None,
    from_checkpoint: Checkpoint | Path | str | None = None,
    clamp: bool = False,
    **form: Any,
) -> Hypernetwork:
    """Makes a hypernetwork of a network: `hypernetwork("timm/resnet18", condition=Scalar(0, 180), rank=8)`.

    Args:
        model: the primary network, which is copied, or its recipe.
        condition: what the weights depend on: name → Spec, one Spec, or so many numbers in [0, 1].
        parameters: which are written: a pattern such as `layer*.weight`, several, a type of layer, or a predicate of
            name and parameter; all by default. The others are trained as they are.
        rank: writes each matrix's change as a product of that rank: for networks of millions of weights.
        chunk: writes weights in chunks of so many values that share one map: smaller still.
        from_checkpoint: a trained network, or its file, to begin with.
        clamp: moves conditions that are out of their range to its end; else they are an error.
        form: further entries of `HypernetworkConfig`.

    Raises:
        UnknownNameError: for a pattern that matches nothing; it names the near ones.
        WeightgenError: for parameters that cannot be written, or a condition that is none.
        ArchitectureError: if the checkpoint's tensors do not fit the network.
    """
    if not isinstance(model, nn.Module | Architecture | str):
        raise WeightgenError("not a network", got=repr(model)[:60], expected="a module or the recipe of one")
    architecture = Architecture.parse(model) if isinstance(model, str) else model
    network = architecture.build() if isinstance(architecture, Architecture) else copy.deepcopy(architecture)
    recipe = architecture if isinstance(architecture, Architecture) else None
    if from_checkpoint is not None:
        checkpoint = from_checkpoint if isinstance(from_checkpoint, Checkpoint) else Checkpoint.load(from_checkpoint)
        _load(network, checkpoint)
        recipe = recipe or checkpoint.architecture
    config = HypernetworkConfig(rank=rank, chunk=chunk, **form)
    return Hypernetwork(network, ConditionSpace(condition, clamp), select(network, parameters), config, recipe)


def _batched_attention(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """On a CPU the fused attention has no rule for vmap, which would take the conditions one by one and warn."""
    if device.type != "cpu":
        return contextlib.nullcontext()
    return torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)


def _load(network: nn.Module, checkpoint: Checkpoint) -> None:
    from weightgen.errors import ArchitectureError

    try:
        network.load_state_dict(checkpoint.state_dict())
    except RuntimeError as error:
        raise ArchitectureError(
            "the checkpoint does not fit the network", where=checkpoint.architecture,
            got=str(error).splitlines()[-1].strip(), expected=type(network).__name__,
        ) from error  # fmt: skip
