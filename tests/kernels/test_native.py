"""Building, keeping and choosing the twins."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from weightgen.errors import KernelError, UnknownNameError
from weightgen.kernels import gather_tokens, native, table_of
from weightgen.kernels.build import build, library_path
from weightgen.kernels.segments import Segment

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
TABLE = table_of([Segment(0, 1, 1, 1, 3, 0, 3, 3, 0, 4, 1)])


def gathered() -> list:
    return gather_tokens([torch.tensor([[1.0, 2.0, 3.0]])], TABLE, 1, 4, torch.float32).flatten().tolist()


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """A process that knows of no library, with an empty cache and a compiler that fails if it is called."""
    native.forget()
    monkeypatch.delenv("WEIGHTGEN_KERNELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "/bin/false")
    yield
    native.forget()


@pytest.fixture
def in_cache(monkeypatch, built):
    """A cache that holds the CPU's library."""
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("XDG_CACHE_HOME", str(built))


@pytest.fixture
def worth_building(monkeypatch):
    monkeypatch.setattr(native, "WORTH_BUILDING", 0)


def test_little_work_starts_no_compiler():
    """`weightgen generate` must not wait for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gathered() == [1, 2, 3, 0]
    assert native.choose(CPU, native.WORTH_BUILDING - 5) is None
    with pytest.warns(RuntimeWarning, match="plain torch"):
        assert native.choose(CPU, 1) is None


def test_a_library_in_the_cache_is_used_for_any_work(in_cache):
    assert native.choose(CPU, 1) is native.load("cpu")
    assert gathered() == [1, 2, 3, 0]


def test_auto_falls_back_and_says_so_once(worth_building):
    with pytest.warns(RuntimeWarning, match=r"plain torch.*cannot build.*in /bin/false; got exit 1") as seen:
        assert gathered() == gathered() == [1, 2, 3, 0]
    assert len(seen) == 1


def test_the_compilers_reason_is_told(worth_building, monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text(
        "#!/bin/sh\necho 'tokens.cpp:1:1: warning: hm'\necho 'tokens.cpp:2:3: error: no such thing' >&2\nexit 3\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(KernelError, match=r"exit 3: tokens\.cpp:2:3: error: no such thing; name another compiler"):
        native.load("cpu")
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    native.forget()
    with pytest.raises(KernelError, match="none; got .*No such file"):
        native.load("cpu")


def test_a_failure_is_remembered(worth_building, monkeypatch):
    with pytest.raises(KernelError) as first:
        native.load("cpu")
    monkeypatch.delenv("CXX")
    with pytest.raises(KernelError) as second:
        native.load("cpu")
    assert first.value is second.value


def test_a_named_choice_does_not_fall_back(monkeypatch):
    monkeypatch.setenv("WEIGHTGEN_KERNELS", "cpu")
    with pytest.raises(KernelError, match="/bin/false"):
        gathered()
    monkeypatch.setenv("WEIGHTGEN_KERNELS", "cuda")
    with pytest.raises(KernelError, match="another device than the kernels chosen.*got cpu; expected cuda"):
        gathered()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error():
    with pytest.raises(KernelError, match="no CUDA device"):
        native.load("cuda")


def test_the_reference_builds_nothing(monkeypatch, worth_building):
    monkeypatch.setenv("WEIGHTGEN_KERNELS", "reference")
    assert native.choose(CPU, 1 << 40) is None and gathered() == [1, 2, 3, 0]


def test_a_choice_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("WEIGHTGEN_KERNELS", "cpp")
    with pytest.raises(UnknownNameError, match="WEIGHTGEN_KERNELS 'cpp'.*cpu"):
        gathered()


def test_other_devices_take_the_reference(worth_building):
    assert native.choose(torch.device("meta"), 1 << 40) is None


def test_a_cache_that_cannot_be_written_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(KernelError, match="cannot build the cpu kernels"):
        build("cpu")


def test_a_damaged_library_is_an_error(monkeypatch):
    path = library_path("cpu")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a library")
    with pytest.raises(KernelError, match="cannot load the cpu kernels"):
        native.load("cpu")


def test_other_sources_or_compilers_have_other_libraries(monkeypatch):
    first = library_path("cpu")
    monkeypatch.setenv("CXX", "/bin/true")
    assert library_path("cpu") != first
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert len({first, library_path("cpu"), library_path("cuda")}) == 3


def test_types_that_no_kernel_moves_are_refused(in_cache, monkeypatch):
    monkeypatch.setenv("WEIGHTGEN_KERNELS", "cpu")
    with pytest.raises(KernelError, match="no kernel moves; got torch.complex128"):
        gather_tokens([torch.zeros(1, 3, dtype=torch.complex128)], TABLE, 1, 4, torch.complex128)


@pytest.mark.slow
def test_two_processes_may_build_at_once(tmp_path, monkeypatch):
    """With a compiler that takes its time, and makes a small library."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"#!{sys.executable}\n"
        "import subprocess, sys, time\n"
        "out = sys.argv[sys.argv.index('-o') + 1]\n"
        "open(out, 'w').write('half')\n"
        "time.sleep(1)\n"
        "text = 'extern \"C\" void weightgen_gather(void*) {}'\n"
        "subprocess.run(['c++', '-shared', '-fPIC', '-xc++', '-', '-o', out], input=text.encode(), check=True)\n"
    )
    compiler.chmod(0o755)
    code = "from weightgen.kernels import native; native.load('cpu').library.weightgen_gather; print('built')"
    environment = os.environ | {"CXX": str(compiler)}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["built\n"] * 2
    folder = tmp_path / "cache/weightgen/kernels"
    assert len(list(folder.iterdir())) == 1 and next(folder.iterdir()).suffix == ".so"


def test_kernels_need_only_torch_and_numpy():
    """And not the compiler of torch, whose import takes seconds."""
    code = (
        "import sys, torch\n"
        "from weightgen.kernels import Segment, gather_tokens, table_of\n"
        "table = table_of([Segment(0, 1, 1, 1, 3, 0, 3, 3, 0, 4, 1)])\n"
        "gather_tokens([torch.ones(1, 3)], table, 1, 4, torch.float32)\n"
        "unwanted = ('scipy', 'timm', 'transformers', 'torchvision', 'torch._dynamo', 'torch.utils.cpp_extension')\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.stdout.strip() == "[]", found.stderr
