"""Networks of many kinds through their tokens and back: is every bit the same, and how many tokens does it take?

Architectures of timm at full size, those of transformers and diffusers at small ones (diffusers is an extra of the
package), with random weights; and checkpoints under `$WEIGHTGEN_DATA`, if it is set. Each network makes the way in
float32, float16 and bfloat16. Writes results/layouts.json. Run it as `scripts/benchmarks/layouts`.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightgen.architecture import Architecture
from weightgen.tokenizers.layout import Layout

FOLDER = Path(__file__).resolve().parent / "results"
CHUNK = 80
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
TIMM = (
    "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "mobilenetv3_large_100", "efficientnet_b0",
    "convnext_tiny", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "mixer_s16_224",
)  # fmt: skip
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 99}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "Bert": SMALL,
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 99, "n_positions": 64},
    "Llama": SMALL | {"num_key_value_heads": 2},
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99},
    "Whisper": {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "pad_token_id": 0,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 99,
    },
}  # fmt: skip
CHANNELS = {"block_out_channels": (32, 64), "norm_num_groups": 8}
DIFFUSERS: dict[str, dict[str, Any]] = {
    "UNet2DModel": CHANNELS | {
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    },
    "UNet2DConditionModel": CHANNELS | {
        "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "AutoencoderKL": CHANNELS | {
        "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
    },
    "AutoencoderTiny": {},
    "DiTTransformer2DModel": {"num_attention_heads": 4, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8},
}  # fmt: skip


def main() -> None:
    rows = []
    for name, tensors in networks():
        rows.append({"network": name, **measured(tensors)})
        print(json.dumps(rows[-1]))
    result = {
        "command": "scripts/benchmarks/layouts",
        "chunk": CHUNK,
        "networks": len(rows),
        "same_to_the_bit": sum(row["same_to_the_bit"] for row in rows),
        "rows": rows,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "layouts.json").write_text(json.dumps(result, indent=1) + "\n")


def networks() -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    torch.manual_seed(0)
    for name in TIMM:
        yield f"timm/{name}", Architecture.parse(f"timm/{name}").build().state_dict()
    for name, build in libraries():
        yield name, build().state_dict()
    data = os.environ.get("WEIGHTGEN_DATA")
    for path in sorted(Path(data).rglob("*.*")) if data else []:
        if path.suffix in (".th", ".pth", ".ckpt"):
            found = torch.load(path, map_location="cpu", weights_only=True)
            for key in ("state_dict", "model_fine_state_dict"):
                found = found.get(key, found)
            yield str(path.relative_to(data or ".")), found


def libraries() -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    import diffusers
    import transformers

    for name, options in TRANSFORMERS.items():
        config = getattr(transformers, f"{name}Config")(**options)
        yield f"transformers/{name}", lambda name=name, config=config: getattr(transformers, f"{name}Model")(config)
    for name, options in DIFFUSERS.items():
        yield f"diffusers/{name}", lambda name=name, options=options: getattr(diffusers, name)(**options)


def measured(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    begin = time.process_time()
    layout = Layout.of(tensors, CHUNK)
    segments = len(layout.table)
    seconds = time.process_time() - begin
    values = sum(tensors[name].numel() for name in layout.shapes)
    return {
        "tensors": len(tensors),
        "values": values,
        "copied_beside": len(layout.copied),
        "segments": segments,
        "tokens": layout.tokens,
        "padding": round(1 - values / max(1, layout.tokens * CHUNK), 4),
        "layout_milliseconds": round(1e3 * seconds, 2),
        "same_to_the_bit": all(comes_back(tensors, kind) for kind in (torch.float32, torch.float16, torch.bfloat16)),
    }


def comes_back(tensors: Mapping[str, Tensor], kind: torch.dtype) -> bool:
    """Whether the network in a type, through tokens and JSON of its layout, is the same to the bit."""
    cast = {name: one.to(kind) if one.is_floating_point() else one for name, one in tensors.items()}
    layout = Layout.from_json(json.loads(json.dumps(Layout.of(cast, CHUNK).to_json())))
    batch = {name: one[None] for name, one in cast.items()}
    found = layout.scatter(layout.gather(batch)) | layout.beside(batch)
    return set(found) == set(cast) and all(
        torch.equal(found[name][0].contiguous().view(WHOLE[one.itemsize]), one.contiguous().view(WHOLE[one.itemsize]))
        for name, one in cast.items()
    )


if __name__ == "__main__":
    main()
