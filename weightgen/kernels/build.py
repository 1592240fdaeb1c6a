"""Building of the C++ and CUDA libraries: one call of the compiler, kept in the user's cache.

The libraries have a plain C interface, so that one compiler call of seconds makes them, with no ninja, no setuptools
and no header of torch but the one of its threads. The cache is keyed by the sources, the version of torch, the compiler
and the processor; a library takes its name only when it is whole, so two processes may build at once.
"""

import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch

from weightgen.errors import KernelError

SOURCES = Path(__file__).resolve().parent / "csrc"
TIMEOUT = 600
"""Seconds after which a compiler is given up."""


def cache_folder() -> Path:
    """Where libraries are kept: `weightgen/kernels` in `$XDG_CACHE_HOME` or `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "weightgen" / "kernels"


def library_path(twin: str) -> Path:
    """Where the library of a twin, `cpu` or `cuda`, is or will be."""
    target = _processor() if twin == "cpu" else _architectures()
    hasher = hashlib.sha256(repr((twin, torch.__version__, _compiler(twin), target)).encode())
    for path in sorted(SOURCES.iterdir()):
        hasher.update(path.name.encode() + path.read_bytes())
    return cache_folder() / f"{twin}-{hasher.hexdigest()[:20]}.so"


def build(twin: str) -> Path:
    """Compiles the library of a twin unless it is there already.

    Raises:
        KernelError: with the compiler's reason.
    """
    path = library_path(twin)
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            compile_library(command(twin, made))
            made.replace(path)
    except OSError as error:
        raise KernelError(f"cannot build the {twin} kernels", where=path.parent, got=str(error)) from error
    return path


def compile_library(arguments: list[str]) -> str:
    """Runs a compiler and returns what it said.

    Raises:
        KernelError: with what the compiler said last.
    """
    remedy = "name another compiler by CXX, or set WEIGHTGEN_KERNELS=reference"
    try:
        found = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, cwd=SOURCES)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError("cannot build the kernels", where=arguments[0], got=str(error), remedy=remedy) from error
    if found.returncode:
        said = [line for line in (found.stderr + found.stdout).splitlines() if line.strip()]
        reason = next((line for line in said if "error" in line), said[-1] if said else "no reason given")
        raise KernelError(
            "cannot build the kernels", where=shlex.join(arguments[:1]), got=f"exit {found.returncode}: {reason}",
            remedy=remedy,
        )  # fmt: skip
    return found.stdout + found.stderr


def command(twin: str, out: Path, *extra: str) -> list[str]:
    """The compiler call that makes the library of a twin."""
    torch_folder = Path(torch.__file__).parent
    if twin == "cpu":
        include, library = torch_folder / "include", torch_folder / "lib"
        # Without contraction a product and a sum round twice, as in the other twins.
        flags = ["-O3", *_native_flags(), "-ffp-contract=off", "-fno-math-errno", "-fopenmp", "-fPIC", "-shared"]
        links = [f"-L{library}", "-lc10", "-ltorch_cpu"]
        return [*_compiler(twin), *flags, "-std=c++20", f"-I{include}", *extra, "tokens.cpp", "-o", str(out), *links]
    flags = ["-O3", "-fmad=false", "-std=c++17", "-Xcompiler", "-fPIC", "-shared", "--cudart", "shared"]
    return [*_compiler(twin), *flags, *_architectures(), *extra, "tokens.cu", "-o", str(out)]


def _compiler(twin: str) -> list[str]:
    if twin == "cpu":
        return shlex.split(os.environ.get("CXX") or "c++")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    return [str(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"]


def _architectures() -> list[str]:
    """Code for the GPUs of this machine."""
    found = {torch.cuda.get_device_capability(number) for number in range(torch.cuda.device_count())}
    return [f"-gencode=arch=compute_{major}{minor},code=sm_{major}{minor}" for major, minor in sorted(found)]


def _native_flags() -> list[str]:
    return ["-march=native"] if platform.machine() in ("x86_64", "AMD64") else []


@functools.cache
def _processor() -> str:
    """What tells processors apart whose libraries must not be exchanged."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")
