"""The gather and scatter of tokens against memcpy, a tokenizer in Python, torch indexing and our own reference.

All sides run in turn, round after round, in this one process. On one thread their time is the processor's, so that what
else runs on the machine takes little part in it; on all threads it is the clock's. A time is the least of all rounds.
Bytes are those read and written. Writes results/kernels.json. Run it as `scripts/benchmarks/kernels [--all-threads]`,
with all threads only on a machine that does nothing else.
"""

import ctypes
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from python_tokenizer import slices, usual_detokenizer, usual_tokenizer
from torch import Tensor

from weightgen.architecture import Architecture
from weightgen.kernels import gather_tokens, native, scatter_codes
from weightgen.structure import axis_groups
from weightgen.tokenizers.layout import Layout, layout_of
from weightgen.tokenizers.orders import permuted_table

FOLDER = Path(__file__).resolve().parent / "results"
MLP, CHUNK, NETWORKS = Architecture.parse("weightgen/mlp?hidden=32,32&input=1,28,28"), 80, 1000
LEVELS, ENTRIES = 4, 128
ROUNDS = 30
COPY = 1 << 27
"""Bytes of the copies that others are held against: beyond every cache, and about what the gather reads."""
SLOW, SHARE = "python", 20
"""What begins so takes one in `SHARE` of the networks, so that it is as short as the others and as little disturbed."""

Sides = Mapping[str, Callable[[], Any]]


def main() -> None:
    random = torch.Generator().manual_seed(0)
    layout = layout_of(MLP, CHUNK)
    tensors = {name: torch.randn(NETWORKS, *shape, generator=random) for name, shape in layout.shapes.items()}
    result: dict[str, Any] = {
        "command": "scripts/benchmarks/kernels",
        "machine": _machine(),
        "networks": NETWORKS,
        "values": len(layout.tensor_of),
        "padded": layout.tokens * CHUNK,
        "threads": {},
    }
    for threads in {1, os.cpu_count() or 1} if "--all-threads" in sys.argv[1:] else {1}:
        torch.set_num_threads(threads)
        result["threads"][threads] = {
            "gather": _gather(layout, tensors),
            "scatter": _scatter(layout, tensors),
            "resnet50": _resnet50(),
        }
    result["gpu"] = _gpu(layout, tensors) if torch.cuda.is_available() else "none on this machine"
    result["bars"] = {threads: _bars(measured) for threads, measured in result["threads"].items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "kernels.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def seconds(sides: Sides) -> dict[str, float]:
    """Least seconds of each side; every round runs all of them."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found = {name: float("inf") for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            begin = clock()
            kept = side()
            found[name] = min(found[name], clock() - begin)
            del kept
    return {name: value * (SHARE if name.startswith(SLOW) else 1) for name, value in found.items()}


def twin(name: str, call: Callable[[], Any]) -> Callable[[], Any]:
    """A call that takes a named twin."""

    def side() -> Any:
        os.environ["WEIGHTGEN_KERNELS"] = name
        return call()

    return side


def copies() -> Sides:
    """Ways to copy `COPY` bytes, of which the machine's memcpy is the fastest."""
    source, target = torch.randn(COPY // 4), torch.empty(COPY // 4)
    return {
        "memcpy, libc, one thread": lambda: ctypes.memmove(target.data_ptr(), source.data_ptr(), COPY),
        "memcpy, torch": lambda: target.copy_(source),
    }


def table(sides: Mapping[str, float], size: int, ours: str, others: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Milliseconds, bandwidth, and how much longer each side takes than ours; `others` move another number of bytes."""
    sizes = (
        dict.fromkeys(sides, size) | {name: 2 * COPY for name in sides if name.startswith("memcpy")} | (others or {})
    )
    return {
        name: {
            "milliseconds": round(1e3 * value, 3),
            "gigabytes_per_second": round(sizes[name] / value / 1e9, 2),
            "times_ours": None if name.startswith("memcpy") else round(value / sides[ours], 2),
        }
        for name, value in sides.items()
    }


def _gather(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    values, padded = NETWORKS * len(layout.tensor_of), NETWORKS * layout.tokens * CHUNK
    mean = torch.randn(layout.tokens, CHUNK)
    scales = torch.rand(len(layout.shapes)) + 0.5
    permuted, order = _permuted(layout)
    chosen = list(tensors.values())
    own = (permuted, layout.tokens, CHUNK)
    positions, padding = layout.positions.clamp_min(0), ~layout.mask
    flat_positions = positions.flatten()

    def cat() -> Tensor:
        return torch.cat([tensor.flatten(1) for tensor in tensors.values()], dim=1)

    flat, few = cat(), {name: tensor[: NETWORKS // SHARE] for name, tensor in tensors.items()}
    sides = {
        **copies(),
        "ours": twin("cpu", lambda: layout.gather(tensors)),
        "ours, normalised": twin("cpu", lambda: layout.gather(tensors, reference=mean, scales=scales)),
        "ours, permuted": twin("cpu", lambda: gather_tokens(chosen, *own, torch.float32, order)),
        "ours, permuted and normalised": twin(
            "cpu", lambda: gather_tokens(chosen, *own, torch.float32, order, mean, torch.ones(len(permuted)))
        ),
        "ours, to bfloat16": twin("cpu", lambda: layout.gather(tensors, dtype=torch.bfloat16)),
        "our reference in torch": twin("reference", lambda: layout.gather(tensors)),
        "torch: cat, index": lambda: cat()[:, positions].masked_fill_(padding, 0),
        "torch: cat, index_select": lambda: (
            cat().index_select(1, flat_positions).view(NETWORKS, -1, CHUNK).masked_fill_(padding, 0)
        ),
        "torch: index_select, cat not counted": lambda: (
            flat.index_select(1, flat_positions).view(NETWORKS, -1, CHUNK).masked_fill_(padding, 0)
        ),
        "torch: gather, cat not counted": lambda: (
            flat.gather(1, flat_positions.expand(NETWORKS, -1)).view(NETWORKS, -1, CHUNK).masked_fill_(padding, 0)
        ),
        "python, with mask and positions": lambda: _one_by_one(few),
        "python, tokens alone": lambda: _one_by_one(few, alone=True),
    }
    expected = layout.gather(tensors)
    for name in (name for name in sides if name.startswith(("torch", "our reference"))):
        assert torch.equal(sides[name](), expected), name
    assert torch.equal(_one_by_one(tensors), expected)
    narrow = {"ours, to bfloat16": 4 * values + 2 * padded}
    return table(seconds(sides), 4 * (values + padded), "ours", narrow)


def _scatter(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    values, padded = NETWORKS * len(layout.tensor_of), NETWORKS * layout.tokens * CHUNK
    tokens = layout.gather(tensors)
    codebooks = torch.randn(LEVELS, ENTRIES, CHUNK)
    codes = torch.randint(ENTRIES, (NETWORKS, layout.tokens, LEVELS))
    mean, scales = torch.randn(layout.tokens, CHUNK), torch.rand(len(layout.shapes)) + 0.5
    by_segment = scales[layout.table[:, 0]]
    sizes = [torch.Size(shape).numel() for shape in layout.shapes.values()]
    sources = torch.empty(len(layout.tensor_of), dtype=torch.int64)
    kept = layout.mask.flatten().nonzero().squeeze(1)
    sources[layout.positions.flatten()[kept]] = kept
    flat_mean = torch.cat([one.flatten() for one in layout.scatter(mean[None]).values()])
    flat_scales = scales[layout.tensor_of]

    # What the usual inverse is given besides: the positions of the tokens and a network of the same shapes. Its scales
    # are spread over the tokens beforehand, so that it spends no time on that.
    positions = usual_tokenizer({name: torch.zeros(shape) for name, shape in layout.shapes.items()}, CHUNK)[2]
    like = {name: torch.zeros(shape) for name, shape in layout.shapes.items()}
    spread = layout.gather(
        {name: torch.full((1, *like[name].shape), by) for name, by in zip(like, scales, strict=True)}
    )[0]

    def summed(own: Tensor) -> Tensor:
        return functools.reduce(torch.add, (codebooks[level][own[:, level]] for level in range(LEVELS)))

    def looked_up() -> Tensor:
        found = codebooks[0][codes[..., 0]]
        for level in range(1, LEVELS):
            found += codebooks[level][codes[..., level]]
        return found

    options = (codes, codebooks, layout.table, sizes, torch.float32, None)
    plain = {
        **copies(),
        "ours": twin("cpu", lambda: layout.scatter(tokens)),
        "ours, denormalised": twin("cpu", lambda: layout.scatter(tokens, reference=mean, scales=scales)),
        "our reference in torch": twin("reference", lambda: layout.scatter(tokens)),
        "torch: index": lambda: tokens.flatten(1)[:, sources],
        "torch: index_select": lambda: tokens.flatten(1).index_select(1, sources),
        "torch: gather": lambda: tokens.flatten(1).gather(1, sources.expand(NETWORKS, -1)),
        "python, by positions": lambda: [
            usual_detokenizer(one, positions, like) for one in tokens[: NETWORKS // SHARE]
        ],
        "python, tensors alone": lambda: [slices(one, layout) for one in tokens[: NETWORKS // SHARE]],
    }
    small = codes.to(torch.uint8)
    narrow = (small, *options[1:])
    coded = {
        **copies(),
        "ours, denormalised": twin("cpu", lambda: scatter_codes(*options, mean, by_segment)),
        "ours, codes alone": twin("cpu", lambda: scatter_codes(*options)),
        "ours, denormalised, uint8": twin("cpu", lambda: scatter_codes(*narrow, mean, by_segment)),
        "ours, codes alone, uint8": twin("cpu", lambda: scatter_codes(*narrow)),
        "our reference in torch": twin("reference", lambda: scatter_codes(*options, mean, by_segment)),
        "torch: look up, index_select": lambda: (
            looked_up().flatten(1).index_select(1, sources).mul_(flat_scales).add_(flat_mean)
        ),
        "python, by positions": lambda: [
            usual_detokenizer(one * spread + mean, positions, like) for one in map(summed, codes[: NETWORKS // SHARE])
        ],
        "python, tensors alone": lambda: [
            slices(one * spread + mean, layout) for one in map(summed, codes[: NETWORKS // SHARE])
        ],
    }
    expected = twin("reference", lambda: scatter_codes(*options, mean, by_segment))()
    assert torch.equal(coded["ours, denormalised"](), expected)
    assert torch.equal(coded["ours, denormalised, uint8"](), expected)
    assert torch.equal(coded["torch: look up, index_select"](), expected)
    for side in (name for name in coded if name.startswith(SLOW)):
        assert torch.equal(torch.cat([tensor.flatten() for tensor in coded[side]()[0].values()]), expected[0]), side
    expected = plain["ours"]()
    flat = torch.cat([tensor.flatten(1) for tensor in expected.values()], dim=1)
    assert all(torch.equal(plain[name](), flat) for name in plain if name.startswith("torch"))
    for side in (name for name in plain if name.startswith(SLOW)):
        assert all(torch.equal(tensor, expected[name][0]) for name, tensor in plain[side]()[0].items()), side
    widths = {
        name: 4 * values + (1 if "uint8" in name else 8) * codes.numel() for name in coded if name.startswith("ours")
    }
    return {
        "tokens": table(seconds(plain), 4 * (values + padded), "ours"),
        "codes": table(seconds(coded), 4 * values + 8 * codes.numel(), "ours, denormalised", widths),
    }


def _resnet50() -> dict[str, Any]:
    tensors = {name: tensor[None] for name, tensor in Architecture.parse("timm/resnet50").build().state_dict().items()}
    begin = time.perf_counter()
    layout = Layout.of({name: tensor[0] for name, tensor in tensors.items()}, CHUNK)
    rows = len(layout.table)
    made = time.perf_counter() - begin
    values = sum(tensors[name].numel() for name in layout.shapes)
    tokens = layout.gather(tensors)
    sides = {
        **copies(),
        "gather": twin("cpu", lambda: layout.gather(tensors)),
        "scatter": twin("cpu", lambda: layout.scatter(tokens)),
        "gather, our reference in torch": twin("reference", lambda: layout.gather(tensors)),
    }
    return {
        "values": values,
        "tokens": layout.tokens,
        "segments": rows,
        "layout_milliseconds": round(1e3 * made, 2),
        **table(seconds(sides), 4 * (values + tokens.numel()), "gather"),
    }


def _gpu(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """At 1 GB and more, by the GPU's own clock, against a copy on the device."""
    moved = {name: tensor.cuda().repeat(5, *[1] * (tensor.dim() - 1)) for name, tensor in tensors.items()}
    tokens = layout.gather(moved)
    size = 4 * (sum(tensor.numel() for tensor in moved.values()) + tokens.numel())
    source, target = torch.randn(size // 8, device="cuda"), torch.empty(size // 8, device="cuda")
    mean = torch.randn(layout.tokens, CHUNK, device="cuda")
    scales = torch.rand(len(layout.shapes), device="cuda") + 0.5

    def timed(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(ROUNDS):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            call()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        return statistics.median(times)

    sides = {
        "copy on the device": timed(lambda: target.copy_(source)),
        "gather": timed(twin("cuda", lambda: layout.gather(moved))),
        "gather, normalised": timed(twin("cuda", lambda: layout.gather(moved, reference=mean, scales=scales))),
        "scatter": timed(twin("cuda", lambda: layout.scatter(tokens))),
    }
    return {"device": torch.cuda.get_device_name(), "bytes": size, **table(sides, size, "gather")}


def _bars(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What was to be reached and what was, on one thread on all sides."""
    tables = {
        "gather": measured["gather"],
        "scatter": measured["scatter"]["tokens"],
        "scatter of codes": measured["scatter"]["codes"],
    }

    def named(what: str, start: str, figure: str = "milliseconds") -> dict[str, float]:
        return {name: side[figure] for name, side in tables[what].items() if name.startswith(start)}

    def bar(reached: float, wanted: float) -> dict[str, Any]:
        return {"reached": round(reached, 3), "wanted": wanted, "met": reached >= wanted}

    bandwidth = "gigabytes_per_second"
    copy = max(max(named(what, "memcpy", bandwidth).values()) for what in tables)
    bars: dict[str, Any] = {"memcpy_gigabytes_per_second": copy}
    for what in tables:
        ours = named(what, "ours")
        for name, value in named(what, "ours", bandwidth).items():
            bars[f"{what}, {name}: share of memcpy"] = bar(value / copy, 0.6)
        # The one that does what the others do.
        mine = ours["ours"] if "ours" in ours else ours["ours, denormalised"]
        for name, value in named(what, "python").items():
            bars[f"{what}: times {name}"] = bar(value / mine, 50)
        bars[f"{what}: times the best torch indexing"] = bar(min(named(what, "torch").values()) / mine, 3)
        bars[f"{what}: times our reference in torch"] = bar(min(named(what, "our reference").values()) / mine, 1)
    milliseconds = measured["resnet50"]["gather"]["milliseconds"]
    bars["resnet50 gathered, milliseconds"] = {"reached": milliseconds, "wanted": 50, "met": milliseconds <= 50}
    return bars


def _one_by_one(tensors: Mapping[str, Tensor], alone: bool = False) -> Tensor:
    networks = (
        dict(zip(tensors, parts, strict=True))
        for parts in zip(*(tensor.unbind(0) for tensor in tensors.values()), strict=True)
    )
    return torch.stack([usual_tokenizer(network, CHUNK, alone)[0] for network in networks])


def _permuted(layout: Layout) -> tuple[Tensor, Tensor]:
    """The table with the hidden units of both layers in another order for each network, and those orders."""
    groups = axis_groups(layout.shapes)
    orders = [torch.rand(NETWORKS, group.size).argsort(1) for group in groups]
    return permuted_table(layout, groups), torch.cat(orders, dim=1)


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return {
        "processor": next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine()),
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "allocator_keeps_memory": "MALLOC_MMAP_THRESHOLD_" in os.environ,
    }


if __name__ == "__main__":
    native.load("cpu")
    main()
