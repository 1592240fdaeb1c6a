"""Sizes as options: what a family's own options must be for a network whose tensors have given shapes.

An option is read off the shapes where it shows; the caller compares all shapes and falls back on `group_sizes` if the
options cannot say it, as when the layers of a transformer have different widths.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
Counted = Callable[[str, int, int], int]
"""(tensor, axis, how many heads there were along it) → how many there are now."""


@dataclass(frozen=True)
class _Transformer:
    """Where the sizes of a kind of transformer show.

    Args:
        width, inner: (option, end of a tensor's name, axis) of the residual stream and of the layer between.
        heads, key_value_heads: likewise for the axis along which heads lie; the second only where keys are grouped.
        head_size: the option for the values of a head, "" where it is the width over the heads.
        depth: the option for the number of layers.
    """

    width: tuple[str, str, int]
    inner: tuple[str, str, int]
    heads: tuple[str, str, int]
    depth: str
    key_value_heads: tuple[str, str, int] | None = None
    head_size: str = ""


_TRANSFORMERS: dict[str, _Transformer] = {
    r"transformers/(Llama|Mistral|Qwen2|Qwen3|Gemma|Phi3)[A-Z]\w*": _Transformer(
        ("hidden_size", "embed_tokens.weight", 1), ("intermediate_size", "mlp.gate_proj.weight", 0),
        ("num_attention_heads", "self_attn.q_proj.weight", 0), "num_hidden_layers",
        ("num_key_value_heads", "self_attn.k_proj.weight", 0), "head_dim",
    ),
    r"transformers/(Bert|Roberta|Electra)[A-Z]\w*": _Transformer(
        ("hidden_size", "word_embeddings.weight", 1), ("intermediate_size", "intermediate.dense.weight", 0),
        ("num_attention_heads", "attention.self.query.weight", 0), "num_hidden_layers",
    ),
    r"transformers/GPT2\w*": _Transformer(
        ("n_embd", "wte.weight", 1), ("n_inner", "mlp.c_fc.weight", 1), ("n_head", "attn.c_attn.weight", 1), "n_layer",
    ),
}  # fmt: skip


def sizes(module: Any, family: str, shapes: Shapes, counted: Counted) -> dict[str, Any]:
    """The options that say the sizes, beside those that a recipe has already; empty if the family has none.

    Args:
        module: the network as it was, maybe on the meta device.
        family: the family of its recipe.
        shapes: name → new shape of every tensor.
        counted: finds the new number of heads.
    """
    if family in _OWN:
        return _OWN[family](shapes)
    if family.startswith("timm/") and hasattr(module, "blocks") and hasattr(module, "embed_dim"):
        return _vision_transformer(module, shapes, counted)
    for pattern, kind in _TRANSFORMERS.items():
        if re.fullmatch(pattern, family):
            return _transformer(module, kind, shapes, counted)
    return {}


@dataclass(frozen=True)
class Heads:
    """Where heads and the residual stream show, in a family where one must fit the other.

    Args:
        stream: a tensor and its axis along which the residual stream lies.
        tensors: the end of the names of the tensors along whose axis heads lie, and the axis.
        count: how many heads a layer has.
        size: how many values a head has where all heads make up the stream; 0 where their number need only divide it.
    """

    stream: tuple[str, int]
    tensors: tuple[str, int]
    count: int
    size: int


def heads(module: Any, family: str) -> Heads | None:
    """How heads and width depend on one another; None for a family where they do not."""
    for pattern, kind in _TRANSFORMERS.items():
        if re.fullmatch(pattern, family):
            width, count = getattr(module.config, kind.width[0]), getattr(module.config, kind.heads[0])
            stream = _named(dict.fromkeys(module.state_dict(), ()), kind.width[1])
            size = 0 if kind.head_size else width // count
            return Heads((stream, kind.width[2]), kind.heads[1:], count, size)
    return None


def depth_option(module: Any, family: str) -> str:
    """The option for the number of layers, "" if there is none."""
    if family == "weightgen/resnet":
        return "blocks"
    if family.startswith("timm/"):
        if hasattr(module, "blocks") and hasattr(module, "embed_dim"):
            return "depth"
        return "layers" if re.fullmatch(r"timm/(wide_)?resne[xt]+t?\d+\w*", family) else ""
    return next((kind.depth for pattern, kind in _TRANSFORMERS.items() if re.fullmatch(pattern, family)), "")


def _transformer(module: Any, kind: _Transformer, shapes: Shapes, counted: Counted) -> dict[str, Any]:
    found = {option: _read(shapes, end, axis) for option, end, axis in (kind.width, kind.inner)}
    option, end, axis = kind.heads
    before = getattr(module.config, option)
    name = _named(shapes, end)
    if kind.key_value_heads is None:
        return found | {option: counted(name, axis, before)}
    grouped, key_end, key_axis = kind.key_value_heads
    size = module.config.head_dim
    # Rotations look at the places within a head, so that its size stays.
    found[grouped] = _read(shapes, key_end, key_axis) // size
    return found | {option: _read(shapes, end, axis) // size, kind.head_size: size}


def _vision_transformer(module: Any, shapes: Shapes, counted: Counted) -> dict[str, Any]:
    width, inner = _read(shapes, "blocks.0.attn.qkv.weight", 1), _read(shapes, "blocks.0.mlp.fc1.weight", 0)
    if not width or not inner:
        return {}
    heads = counted("blocks.0.attn.qkv.weight", 0, module.blocks[0].attn.num_heads)
    ratio = inner / width
    # timm rounds the product down.
    while int(width * ratio) < inner:
        ratio += 1e-9 * ratio
    return {"embed_dim": width, "num_heads": heads, "mlp_ratio": ratio}


def _multilayer_perceptron(shapes: Shapes) -> dict[str, Any]:
    return {"hidden": _rows(shapes, r"hidden\d+\.weight")}


def _convolutional_network(shapes: Shapes) -> dict[str, Any]:
    return {"channels": _rows(shapes, r"conv\d+\.weight")}


def _residual_network(shapes: Shapes) -> dict[str, Any]:
    widths = _rows(shapes, r"layer\d+\.0\.conv2\.weight")
    stages = [_rows(shapes, rf"layer{stage + 1}\.\d+\.conv1\.weight") for stage in range(len(widths))]
    plain = all(inner == wide for wide, inners in zip(widths, stages, strict=True) for inner in inners)
    doubled = all(wide == widths[0] * 2**stage for stage, wide in enumerate(widths))
    return {
        "width": widths[0] if doubled else 16,
        "widths": () if doubled else widths,
        "inner": () if plain else tuple(inner for inners in stages for inner in inners),
    }


_OWN: dict[str, Callable[[Shapes], dict[str, Any]]] = {
    "weightgen/mlp": _multilayer_perceptron,
    "weightgen/cnn": _convolutional_network,
    "weightgen/resnet": _residual_network,
}


def _named(shapes: Shapes, end: str) -> str:
    return next((name for name in shapes if name.endswith(end)), "")


def _read(shapes: Shapes, end: str, axis: int) -> int:
    name = _named(shapes, end)
    return shapes[name][axis] if name else 0


def _rows(shapes: Shapes, pattern: str) -> tuple[int, ...]:
    return tuple(shape[0] for name, shape in shapes.items() if re.fullmatch(pattern, name))
