"""Small networks of real classes, and the change of their output under permutations of their axis groups."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from weightgen.structure import AxisGraph, AxisGroup, permuted
from weightgen.structure.tracing import trace_axes


@dataclass(frozen=True)
class Example:
    """A network with inputs.

    Args:
        module: the network.
        arguments, keywords: what its forward is given.
        output: what of its result counts as output.
    """

    module: nn.Module
    arguments: Sequence[Any]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    output: Callable[[Any], Any] = lambda results: results


class _KeepsDouble(TorchFunctionMode):
    """Leaves float64 what a network would round to float32, as the norms of Llama do."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if arguments and isinstance(arguments[0], Tensor) and arguments[0].dtype is torch.float64:
            if function is Tensor.float:
                return arguments[0]
            if function is Tensor.to:
                arguments = tuple(torch.float64 if item is torch.float32 else item for item in arguments)
                keywords = {name: torch.float64 if item is torch.float32 else item for name, item in keywords.items()}
        return function(*arguments, **keywords)


@contextmanager
def _precision(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.no_grad(), _KeepsDouble():
            yield
    finally:
        torch.set_default_dtype(before)


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Norms, statistics and scales far from one and zero, and no weight zero, so that nothing hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point() or tensor.numel() == 0:
                continue
            if tensor.numel() == max(tensor.shape, default=1):
                lowest = -0.4 if name.endswith(("bias", "mean", "shift")) else 0.6
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.8 + lowest)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor[0].numel() ** -0.5)


def random_orders(groups: Sequence[AxisGroup], seed: int = 1) -> list[Tensor]:
    """A permutation of each group."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(group.size, generator=generator) for group in groups]


def outputs(example: Example, state: Mapping[str, Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The floating-point results of the network with some state, computed in a precision."""

    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    with _precision(dtype):
        module = example.module.to(dtype).eval()
        module.load_state_dict({name: cast(tensor) for name, tensor in state.items()})
        results = module(*tree_map(cast, tuple(example.arguments)), **tree_map(cast, dict(example.keywords)))
        return [leaf for leaf in tree_leaves(example.output(results)) if isinstance(leaf, Tensor)]


def change(example: Example, changed: Mapping[str, Tensor], dtype: torch.dtype = torch.float64) -> float:
    """The largest difference of the output with another state, in units of the output's largest value."""
    before = {name: tensor.clone() for name, tensor in example.module.state_dict().items()}
    kinds = {name: tensor.dtype for name, tensor in before.items()}
    first, second = outputs(example, before, dtype), outputs(example, changed, dtype)
    example.module.to(torch.float32).load_state_dict({name: tensor.to(kinds[name]) for name, tensor in before.items()})
    pairs = [(one, other) for one, other in zip(first, second, strict=True) if one.is_floating_point()]
    assert pairs and all(one.isfinite().all() and one.abs().max() > 1e-6 for one, _ in pairs)
    return max(((one - other).abs().max() / one.abs().max()).item() for one, other in pairs)


def all_permuted(example: Example, graph: AxisGraph, seed: int = 1) -> dict[str, Tensor]:
    """The state of a network with every group in a random order, one after the other."""
    state: Mapping[str, Tensor] = example.module.state_dict()
    for group, order in zip(graph.groups, random_orders(graph.groups, seed), strict=True):
        state = permuted(state, group, order)
    return dict(state)


def all_rescaled(
    state: Mapping[str, Tensor], groups: Sequence[AxisGroup], seed: int = 3, signs: bool = True
) -> dict[str, Tensor]:
    """A state in float64 with every unit's scales and signs changed at random, by a loop over indices."""
    random = torch.Generator().manual_seed(seed)
    out = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for group in groups:
        choices = [(powers, torch.rand(group.size, generator=random).double() + 0.6) for powers in group.scales]
        choices += [
            (powers, torch.randint(0, 2, (group.size,), generator=random).double() * 2 - 1)
            for powers in group.signs * signs
        ]
        for powers, factors in choices:
            for member, power in zip(group.members, powers, strict=True):
                spread = torch.ones(out[member.tensor].shape[member.axis], dtype=torch.float64)
                for unit, indices in enumerate(member.indices(group.size) if power else ()):
                    spread[indices] = factors[unit] ** power
                shape = [-1 if axis == member.axis else 1 for axis in range(out[member.tensor].dim())]
                if power:
                    out[member.tensor] = out[member.tensor] * spread.view(shape)
    return out


def share_in_groups(example: Example, graph: AxisGraph) -> float:
    """The share of parameters that lie in at least one group."""
    covered = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in graph.shapes.items()}
    for group in graph.groups:
        for member in group.members:
            part = covered[member.tensor]
            if member.within is not None:
                axis, start, stop = member.within
                part = part.narrow(axis, start, stop - start)
            part.index_fill_(member.axis, torch.from_numpy(member.indices(group.size).ravel()), True)
    names = [name for name, _ in example.module.named_parameters()]
    return sum(int(covered[name].sum()) for name in names) / sum(covered[name].numel() for name in names)


def _image(side: int = 32, channels: int = 3) -> tuple[Tensor]:
    return (torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(2)),)


def _words(count: int = 7) -> Tensor:
    return torch.randint(1, 90, (1, count), generator=torch.Generator().manual_seed(3))


class LeNet(nn.Module):
    """LeNet-5 with its flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = functional.max_pool2d(functional.relu(self.conv1(image)), 2)
        features = functional.max_pool2d(functional.relu(self.conv2(features)), 2).flatten(1)
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(features)))))


class _Block(nn.Module):
    """A residual block with the shortcut of option A: every other place, channels padded with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.padding = outputs // 4 if stride != 1 or inputs != outputs else None

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features
        if self.padding is not None:
            sides = (0, 0, 0, 0, self.padding, self.padding)
            shortcut = functional.pad(features[:, :, ::2, ::2], sides, "constant", 0)
        features = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(features)))))
        return functional.relu(features + shortcut)


class ResNetA(nn.Module):
    """The ResNets for CIFAR-10 of https://arxiv.org/abs/1512.03385, named as in akamaster/pytorch_resnet_cifar10."""

    def __init__(self, blocks: int = 3, widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for number, width in enumerate(widths, 1):
            layers = []
            for block in range(blocks):
                layers.append(_Block(inputs, width, 2 if number > 1 and block == 0 else 1))
                inputs = width
            setattr(self, f"layer{number}", nn.Sequential(*layers))
        self.linear = nn.Linear(inputs, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = functional.relu(self.bn1(self.conv1(image)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.linear(functional.avg_pool2d(features, features.shape[3]).flatten(1))


class Recurrent(nn.Module):
    """Embedding, LSTM in two directions and layers, projected LSTM, GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(90, 6)
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.projected = nn.LSTM(10, 6, proj_size=4)
        self.gru = nn.GRU(4, 5)
        self.head = nn.Linear(10, 3)

    def forward(self, words: Tensor) -> Tensor:
        features, (hidden, _) = self.lstm(self.words(words))
        features = self.gru(self.projected(features.transpose(0, 1))[0])[0][-1]
        return self.head(torch.cat([features, hidden[-1]], dim=-1))


class Mixed(nn.Module):
    """What few networks have together: gates by `glu`, transposed and grouped convolutions, pixel shuffle, einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.gated = nn.Conv2d(12, 16, 1)
        self.grouped = nn.Conv2d(8, 16, 3, padding=1, groups=4)
        self.norm = nn.GroupNorm(4, 16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2, groups=2)
        self.before = nn.Conv2d(12, 20, 1)
        self.shuffle = nn.PixelShuffle(2)
        self.standard = nn.utils.parametrizations.weight_norm(nn.Conv2d(5, 8, 3))
        self.scale = nn.Parameter(torch.ones(8, 6))
        self.slope = nn.PReLU(8)
        self.head = nn.Linear(6, 4)

    def forward(self, image: Tensor) -> Tensor:
        features = functional.glu(self.gated(functional.relu(self.stem(image))), dim=1)
        features = functional.silu(self.norm(self.grouped(features)))
        features = self.shuffle(self.before(self.up(features)))
        features = self.slope(self.standard(features)).mean((2, 3))
        return self.head(torch.einsum("bi,ij->bj", features, self.scale).softmax(-1))


def _timm(name: str, side: int = 32, **options: Any) -> Callable[[], Example]:
    def build() -> Example:
        import timm

        return Example(timm.create_model(name, num_classes=10, **options), _image(side))

    return build


def _mixer() -> Example:
    from timm.models.mlp_mixer import MlpMixer

    return Example(MlpMixer(num_classes=10, img_size=32, patch_size=8, num_blocks=2, embed_dim=16), _image())


def _vision(name: str, side: int = 64, **options: Any) -> Callable[[], Example]:
    def build() -> Example:
        import torchvision

        return Example(getattr(torchvision.models, name)(num_classes=10, **options), _image(side))

    return build


def _bert() -> Example:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=99, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=18,
        max_position_embeddings=12,
    )  # fmt: skip
    return Example(BertForMaskedLM(config), (), {"input_ids": _words()})


def _gpt2() -> Example:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=99, n_embd=16, n_layer=2, n_head=4, n_positions=12, use_cache=False, bos_token_id=0, eos_token_id=0
    )
    return Example(GPT2LMHeadModel(config), (), {"input_ids": _words()})


def _llama() -> Example:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=24, use_cache=False,
    )  # fmt: skip
    return Example(LlamaForCausalLM(config), (), {"input_ids": _words()})


def _t5() -> Example:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=99, d_model=16, d_kv=4, num_layers=2, num_heads=4, d_ff=18, use_cache=False)
    inputs = {"input_ids": _words(), "decoder_input_ids": _words(5)}
    return Example(T5ForConditionalGeneration(config), (), inputs, lambda results: results.logits)


def _whisper() -> Example:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=99, num_mel_bins=8, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=18, decoder_ffn_dim=18, max_source_positions=10,
        max_target_positions=10, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        use_cache=False,
    )  # fmt: skip
    sound = torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(4))
    inputs = {"input_features": sound, "decoder_input_ids": _words(5)}
    return Example(WhisperForConditionalGeneration(config), (), inputs, lambda results: results.logits)


def _unet() -> Example:
    from diffusers import UNet2DModel

    module = UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return Example(module, (*_image(8), torch.tensor([3])), {"return_dict": False})


def _conditional_unet() -> Example:
    from diffusers import UNet2DConditionModel

    module = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=4, attention_head_dim=4,
        cross_attention_dim=12, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    text = torch.randn(1, 5, 12, generator=torch.Generator().manual_seed(5))
    return Example(module, (*_image(8, 4), torch.tensor([3]), text), {"return_dict": False})


def _autoencoder() -> Example:
    from diffusers import AutoencoderKL

    module = AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    return Example(module, _image(16), {"return_dict": False})


def _tiny_autoencoder() -> Example:
    from diffusers import AutoencoderTiny

    module = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )  # fmt: skip
    return Example(module, (_image(16)[0].sigmoid(),), {"return_dict": False})


def _dit() -> Example:
    from diffusers import DiTTransformer2DModel

    module = DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=2, sample_size=8,
        patch_size=2, norm_num_groups=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    arguments = (*_image(8, 4), torch.tensor([3]), torch.tensor([2]))
    return Example(module, arguments, {"return_dict": False})


def _own(recipe: str) -> Callable[[], Example]:
    def build() -> Example:
        from weightgen.architecture import Architecture

        architecture = Architecture.parse(recipe)
        return Example(architecture.build(), [torch.randn(shape.shape) for shape in architecture.example_inputs()])

    return build


NETWORKS: dict[str, Callable[[], Example]] = {
    "mlp": _own("weightgen/mlp?hidden=8,6"),
    "cnn": _own("weightgen/cnn?channels=4,6"),
    "lenet": lambda: Example(LeNet(), _image(28, 1)),
    "resnet_a": lambda: Example(ResNetA(2, (4, 8, 16)), _image(16)),
    "recurrent": lambda: Example(Recurrent(), (_words(),)),
    "mixed": lambda: Example(Mixed(), _image(8)),
    "resnet18": _timm("resnet18", channels=(8, 12, 16, 20)),
    "resnet50": _timm("resnet50", channels=(8, 12, 16, 20), layers=(2, 1, 1, 1)),
    "resnext50": _timm("resnext50_32x4d", layers=(1, 1, 1, 1), cardinality=4, base_width=32, channels=(16, 16, 16, 16)),
    "densenet121": _timm("densenet121", growth_rate=6, block_config=(2, 3)),
    "mobilenetv3": _timm("mobilenetv3_small_050"),
    "efficientnet": _timm("test_efficientnet"),
    "convnext": _timm("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)),
    "vit": _timm("vit_tiny_patch16_224", depth=2, embed_dim=24, img_size=32),
    "deit": _timm("deit_tiny_distilled_patch16_224", depth=2, embed_dim=24, img_size=32),
    "swin": _timm("swin_tiny_patch4_window7_224", 64, img_size=64, window_size=4, embed_dim=12, depths=(2, 2, 1, 1)),
    "mixer": _mixer,
    "nfnet": _timm("test_nfnet"),
    "shufflenet": _vision("shufflenet_v2_x0_5"),
    "torchvision_resnet18": _vision("resnet18", width_per_group=64),
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "t5": _t5,
    "whisper": _whisper,
    "unet": _unet,
    "conditional_unet": _conditional_unet,
    "autoencoder_kl": _autoencoder,
    "autoencoder_tiny": _tiny_autoencoder,
    "dit": _dit,
}
"""By name, each with random weights."""


def traced(name: str) -> tuple[Example, AxisGraph]:
    """A network of `NETWORKS` with random weights, norms and statistics, and its groups."""
    torch.manual_seed(0)
    example = NETWORKS[name]()
    graph = trace_axes(example.module, example.arguments, example.keywords, example.output)
    randomise(example.module)
    return example, graph
