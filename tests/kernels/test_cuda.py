"""The CUDA library: that it compiles, that its code moves 16 bytes at a time, and on a GPU that it runs."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from weightgen.kernels.build import command, compile_library

ARCHITECTURES = ("sm_80", "sm_90")


def nvcc() -> bool:
    return Path(command("cuda", Path("out"))[0]).exists()


def disassembler() -> str | None:
    """`cuobjdump` of the toolkit, of the package nvidia-cuda-cuobjdump, or of triton."""
    found = shutil.which("cuobjdump")
    for package, place in (("nvidia", "cu13/bin"), ("triton", "backends/nvidia/bin")):
        specification = importlib.util.find_spec(package)
        for folder in [] if specification is None else specification.submodule_search_locations or []:
            path = Path(folder) / place / "cuobjdump"
            found = found or (str(path) if path.exists() else None)
    return found


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> tuple[Path, str]:
    """The library for both architectures, and what the assembler said of its kernels."""
    out = tmp_path_factory.mktemp("cuda") / "cuda.so"
    targets = [f"-gencode=arch=compute_{name[3:]},code={name}" for name in ARCHITECTURES]
    said = compile_library(command("cuda", out, *targets, "-Xptxas", "-v", "-Werror", "all-warnings"))
    return out, said


@pytest.mark.slow
@pytest.mark.skipif(not nvcc(), reason="no nvcc")
class TestCode:
    def test_no_kernel_spills(self, compiled):
        _, said = compiled
        spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
        # Gather, scatter and scatter of codes, for five kinds of tokens.
        assert len(spills) == 15 * len(ARCHITECTURES)
        assert set(spills) == {("0", "0", "0")}

    @pytest.mark.skipif(disassembler() is None, reason="no cuobjdump")
    def test_values_move_in_16_bytes(self, compiled):
        library, _ = compiled
        text = subprocess.run(
            [disassembler(), "-sass", str(library)], capture_output=True, text=True, check=True
        ).stdout
        assert {f"sm_{number}" for number in re.findall(r"arch = sm_(\d+)", text)} == set(ARCHITECTURES)
        kernels = re.split(r"Function : ", text)[1:]
        assert len(kernels) == 15 * len(ARCHITECTURES)
        for kernel in kernels:
            assert "LDG.E.128" in kernel and "STG.E.128" in kernel, kernel.splitlines()[0]
            assert not re.search(r"\b(LDL|STL)\b", kernel), kernel.splitlines()[0]


@pytest.mark.gpu
def test_jobs_run_on_the_current_stream(monkeypatch):
    from weightgen.kernels import Segment, gather_tokens, table_of

    monkeypatch.setenv("WEIGHTGEN_KERNELS", "cuda")
    table = table_of([Segment(0, 64, 1, 1, 4096, 0, 4096, 4096, 0, 4096, 0)])
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        tensor = torch.randn(64, 64, 4096, device="cuda")
        tokens = gather_tokens([tensor], table, 64, 4096, torch.float32)
        assert torch.equal(tokens, tensor)
