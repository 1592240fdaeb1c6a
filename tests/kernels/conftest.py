"""Tables of all sorts, what they should give by the formula alone, and the three twins to hold against it."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from weightgen.kernels import Segment, native, table_of
from weightgen.kernels.build import SOURCES, build

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("c++")
    assert found, "the tests of the kernels need a C++ compiler"
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory, compiler) -> Path:
    """The cache folder in which the CPU's library was built."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        build("cpu")
    return folder


@pytest.fixture(scope="session")
def cpu(built) -> native.Library:
    return native.Library(ctypes.CDLL(str(next(built.rglob("cpu-*.so")))))


@pytest.fixture(scope="session")
def emulation(tmp_path_factory, compiler) -> ctypes.CDLL:
    """The GPU's code, compiled for the CPU."""
    out = tmp_path_factory.mktemp("emulation") / "emulation.so"
    warned = ["-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]
    flags = ["-O1", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", *warned]
    command = [compiler, *flags, f"-I{SOURCES}", str(HERE / "emulation.cpp"), "-o", str(out)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return ctypes.CDLL(str(out))


@pytest.fixture(params=["reference", "cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def twin(request, monkeypatch) -> str:
    """Each twin in turn; returns the device that its tensors lie on."""
    if request.param == "reference":
        monkeypatch.setenv("WEIGHTGEN_KERNELS", "reference")
    elif request.param == "cpu":
        library = request.getfixturevalue("cpu")
        monkeypatch.setattr(native, "choose", lambda device, values: library)
    elif request.param == "emulated":

        def launch(function: Callable, job: native.Job, tiles: int, device: torch.device) -> None:
            function(ctypes.byref(job), ctypes.c_int64(tiles))

        library = native.Library(request.getfixturevalue("emulation"), launch)
        monkeypatch.setattr(native, "choose", lambda device, values: library)
    else:
        monkeypatch.setenv("WEIGHTGEN_KERNELS", "cuda")
        return "cuda"
    return "cpu"


@dataclass(frozen=True)
class Case:
    """A table with tensors that fit it.

    Args:
        permutations: `[networks, units]`, or None if the table names none.
    """

    networks: int
    tokens: int
    chunk: int
    segments: list[Segment]
    sizes: list[int]
    permutations: Tensor | None

    @property
    def table(self) -> Tensor:
        return table_of(self.segments)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.networks, self.tokens, self.chunk

    def places(self, number: int, network: int) -> tuple[Tensor, Tensor]:
        """Source and target of every value of a segment, by the formula of `segments.py`."""
        s = self.segments[number]
        row, column = torch.arange(s.rows)[:, None], torch.arange(s.width)
        unit, within = column // s.block, column % s.block
        if s.row_permutation >= 0:
            order = self.permutations[network, s.row_permutation :]
            row = order[row // s.row_block] * s.row_block + row % s.row_block
        if s.column_permutation >= 0:
            unit = self.permutations[network, s.column_permutation :][unit]
        source = s.source_offset + row * s.source_row_stride + unit * s.source_unit_stride + within
        target = s.target_offset + torch.arange(s.rows)[:, None] * s.target_row_stride + column
        return source.flatten(), target.flatten()

    def gathered(self, tensors: list[Tensor], change: Callable[[Tensor, int, Tensor], Tensor], dtype) -> Tensor:
        """Tokens by the formula; `change` gets values, their segment and their targets."""
        tokens = torch.zeros(self.networks, self.tokens * self.chunk, dtype=dtype)
        for network in range(self.networks):
            for number, segment in enumerate(self.segments):
                source, target = self.places(number, network)
                tokens[network, target] = change(tensors[segment.tensor][network, source], number, target)
        return tokens.view(self.shape)

    def scattered(self, tokens: Tensor, change: Callable[[Tensor, int, Tensor], Tensor], dtype) -> list[Tensor]:
        """Tensors by the formula."""
        tensors = [torch.zeros(self.networks, size, dtype=dtype) for size in self.sizes]
        for network in range(self.networks):
            for number, segment in enumerate(self.segments):
                source, target = self.places(number, network)
                values = tokens.flatten(1)[network, target]
                tensors[segment.tensor][network, source] = change(values, number, target)
        return tensors


LENGTHS = st.integers(1, 9) | st.sampled_from([16, 32, 33])
WIDE = st.sampled_from([2048, 2051, 4096, 4100])


@pytest.fixture(scope="session")
def cases() -> st.SearchStrategy[Case]:
    @st.composite
    def strategy(draw: st.DrawFn) -> Case:
        networks, chunk = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 4, 8, 16, 40]))
        segments, sizes, units, start = [], [], 0, 0
        for _ in range(draw(st.integers(1, 3))):
            row_block = draw(st.sampled_from([1, 1, 2, 3]))
            rows = draw(st.integers(1, 6)) * row_block
            pieces = []
            for _ in range(draw(st.integers(1, 3))):
                count, block = draw(st.sampled_from([(1, 0), (0, 1), (0, 0)]))
                count, block = count or draw(LENGTHS), block or draw(LENGTHS | WIDE if rows < 3 else LENGTHS)
                by_rows, moved = draw(st.booleans()), draw(st.sampled_from([(), (0,), (1,), (0, 1)]))
                strides = (count * block, block) if by_rows else (block, rows * block)
                permutations = [-1, -1]
                for axis in moved:
                    permutations[axis], units = units, units + (rows // row_block, count)[axis]
                pieces.append((count, block, strides, permutations))
            wide = sum(count * block for count, block, *_ in pieces)
            stride, begin = -(-wide // chunk) * chunk, start
            for place, (count, block, (row, unit), permutations) in enumerate(pieces):
                padding = stride - wide if place == len(pieces) - 1 else 0
                segments.append(
                    Segment(
                        len(sizes), rows, row_block, count, block, 0, row, unit, begin, stride, padding, *permutations
                    )
                )  # fmt: skip
                sizes.append(rows * count * block)
                begin += count * block
            start += rows * stride
        random = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
        orders = torch.empty(networks, units, dtype=torch.int64)
        for segment in segments:
            for first, length in (
                (segment.row_permutation, segment.rows // segment.row_block),
                (segment.column_permutation, segment.units),
            ):
                if first >= 0:
                    orders[:, first : first + length] = torch.rand(networks, length, generator=random).argsort(1)
        return Case(networks, start // chunk, chunk, segments, sizes, orders if units else None)

    return strategy()
