"""The CUDA backend over kernels that the CPU runs: its own Python and its own sources.

``backend()`` builds the module where that has not been done, and gives a copy of
``vae_fast._backends.cuda`` that launches through it, for tensors on the CPU.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock

from vae_fast._backends import _native, cuda

ROOT = Path(__file__).parents[2]
NAME = "cuda_host"
# For CMake: the kernels of the instruction set that every CPU has, and of no other.
BASELINE = tuple(f"-DVF_COMPILES_{name}=OFF" for name in ("AVX2", "AVX512", "AVX512BF16"))


def folder(kind: str) -> Path:
    return ROOT / "build" / f"cuda_host-{sys.implementation.cache_tag}-{kind}"


def program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is needed to build the kernels for the CPU")
    return found


def build(
    folder: Path,
    *options: str,
    name: str = "_cuda_host",
    source: Path = Path(__file__).parent,
    target: str = "all",
) -> Path:
    """Builds in ``folder``, kept between runs; the module's path. One process at a time does."""
    import pybind11

    folder.parent.mkdir(parents=True, exist_ok=True)

    configure = [
        program("cmake"), "-S", str(source), "-B", str(folder), "-G", "Ninja",
        f"-DCMAKE_MAKE_PROGRAM={program('ninja')}", f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", f"-DVF_MODULE={name}", *options,
    ]  # fmt: skip
    compile_ = [program("cmake"), "--build", str(folder), "--target", target]
    with filelock.FileLock(f"{folder}.lock"):
        for command in (configure, compile_):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    (built,) = folder.glob(f"{name}.*.so")
    return built


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.name.partition(".")[0], path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert _native.connect(module) is None
    return module


@functools.cache
def kernels() -> ModuleType:
    """The module named in VAE_FAST_CUDA_HOST, or the ordinary one, built if need be."""
    named = os.environ.get("VAE_FAST_CUDA_HOST")
    return load(Path(named) if named else build(folder("plain")))


def backend_over(kernels: ModuleType) -> ModuleType:
    """A copy of the backend, whose calls launch ``kernels``."""
    spec = importlib.util.spec_from_file_location(f"vae_fast._backends.{NAME}", cuda.__file__)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._kernels = kernels
    module.unavailable = lambda: None
    return module


@functools.cache
def backend() -> ModuleType:
    return backend_over(kernels())
