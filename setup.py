"""Build of the compiled module; everything that is not code stands in pyproject.toml.

VAE_FAST_NATIVE=0 leaves the compiled module out (reference and Triton backends only).
VAE_FAST_CUDA=auto|on|off says whether the CUDA kernels are built; CUDAARCHS, for which GPUs.
CMAKE_ARGS has more options for CMake.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# What CMake reads only once per build folder: another value gets another folder.
TOOLCHAIN = (
    "CXX", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDACXX", "CUDAFLAGS", "CUDAHOSTCXX", "CMAKE_ARGS",
)  # fmt: skip


def native() -> bool:
    value = os.environ.get("VAE_FAST_NATIVE", "1")
    if value not in ("0", "1"):
        sys.exit(f"VAE_FAST_NATIVE must be 0 or 1; it is {value!r}")
    return value == "1"


def program(name: str) -> str:
    """The build requirement of that name, else what is on PATH."""
    try:
        module = importlib.import_module(name)
        folder = module.CMAKE_BIN_DIR if name == "cmake" else module.BIN_DIR
    except (ImportError, AttributeError):
        return shutil.which(name) or sys.exit(f"{name} is needed to build vae_fast")
    return str(Path(folder) / name)


def in_tree_modules() -> list[Path]:
    return [path for suffix in (".so", ".pyd") for path in ROOT.glob(f"vae_fast/_C*{suffix}")]


class CleanBuild(build):
    """Starts from an empty folder, else modules deleted from the sources would be installed."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        if not native():
            for path in in_tree_modules():
                path.unlink()
        super().run()


class CMakeBuild(build_ext):
    """Runs CMake and Ninja, in a folder that is kept, so that a second build is incremental."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        folder = self.cmake_build()
        (built,) = folder.glob(f"_C*{target.suffix}")
        # The copy in the source tree serves whoever runs Python there, where `import vae_fast`
        # finds the sources before the installed package.
        for copy in {target, ROOT / "vae_fast" / target.name}:
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{copy.name}.partial")
            shutil.copy2(built, partial)
            partial.replace(copy)  # a process that has the old file mapped keeps it

    def cmake_build(self) -> Path:
        import pybind11

        cuda = os.environ.get("VAE_FAST_CUDA", "auto")
        archs = os.environ.get("CUDAARCHS", "")
        toolchain = [os.environ.get(name) for name in TOOLCHAIN]
        key = hashlib.sha256(
            repr([*toolchain, cuda, archs, shutil.which("nvcc"), sys.base_prefix]).encode()
        )
        folder = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{key.hexdigest()[:8]}"
        configure = [
            program("cmake"),
            *("-S", str(ROOT / "csrc"), "-B", str(folder), "-G", "Ninja"),
            f"-DCMAKE_MAKE_PROGRAM={program('ninja')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DVAE_FAST_CUDA={cuda}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        compile_ = [program("cmake"), "--build", str(folder)]
        if jobs := os.environ.get("MAX_JOBS"):
            compile_ += ["--parallel", jobs]
        subprocess.run(configure, check=True)
        subprocess.run(compile_, check=True)
        return folder


setup(
    packages=[*find_packages(include=["vae_fast", "vae_fast.*"]), "vae_fast.kernels"],
    package_dir={"vae_fast.kernels": "kernels"},
    package_data={"vae_fast": ["py.typed", "*.pyi"]},
    ext_modules=[Extension("vae_fast._C", sources=[])] if native() else [],
    cmdclass={"build": CleanBuild, "build_ext": CMakeBuild},
)
