"""What users install: the sdist, the wheel made from it, and the package in a clean environment.

The builds run in environments of their own, as ``pip install .`` makes them, from the package
index.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cuda_host
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def built(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that needs a build."""
    return pytest.mark.slow(pytest.mark.timeout(900)(test))


def environment(**more: str) -> dict[str, str]:
    ours = ("PYTHON", "VAE_FAST_", "CUDAARCHS", "CMAKE_ARGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    # Code for one GPU, where there is a CUDA compiler, and for one CPU: the package is tested.
    kept |= {"CUDAARCHS": "90", "CMAKE_ARGS": " ".join(cuda_host.BASELINE)}
    return kept | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt"), **more}


def run(*command: str | Path, cwd: Path, code: int = 0, **env: str) -> str:
    """Standard output and error together of a command that has to end with ``code``."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def build_wheel(source: Path, folder: Path, **env: str) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, source, cwd=folder, **env)
    (wheel,) = folder.glob("*.whl")
    return wheel


def with_dependencies(name: str, found: dict[str, importlib.metadata.Distribution]) -> None:
    """Adds the distribution and all that it requires to ``found``."""
    distribution = importlib.metadata.distribution(name)
    if distribution.metadata["Name"] in found:
        return
    found[distribution.metadata["Name"]] = distribution
    for text in distribution.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            with_dependencies(requirement.name, found)


def clean_environment(folder: Path) -> Path:
    """The Python of a new environment with the core dependencies of this one, and nothing else.

    They are linked, not copied: torch alone can be gigabytes.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    (packages,) = folder.glob("lib/python*/site-packages")
    found: dict[str, importlib.metadata.Distribution] = {}
    for name in ("torch", "numpy", "triton"):
        with_dependencies(name, found)
    for distribution in found.values():
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(distribution.locate_file(top)))
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    """With ``--no-index``, so that a requirement which is not there is an error."""
    command = [sys.executable, "-m", "pip", "--python", python, "install"]
    run(*command, *what, cwd=python.parent)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="module")
def sdist(place: Path) -> Path:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", place, ROOT, cwd=place)
    (path,) = place.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def source(sdist: Path, place: Path) -> Path:
    """The unpacked sdist."""
    with tarfile.open(sdist) as archive:
        # Where Python has filters: since 3.12, and in later releases of those before.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(place / "source", **safely)
    (folder,) = (place / "source").iterdir()
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, place: Path) -> Path:
    (place / "wheel").mkdir()
    return build_wheel(source, place / "wheel")


@pytest.fixture(scope="module")
def python(wheel: Path, place: Path) -> Path:
    """The Python of a clean environment in which the wheel is installed."""
    python = clean_environment(place / "environment")
    install(python, "--no-index", wheel)
    return python


@built
def test_sdist_has_sources_and_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]).as_posix() for name in archive.getnames()}
    for folder in ("csrc", "kernels", "tests", "vae_fast"):
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.*")}
        generated = {name for name in files if re.search(r"__pycache__|\.(so|pyd)\b|/\.", name)}
        assert files - generated - names == set()
        assert generated & names == set()
    expected = {"setup.py", "pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "README.md"}
    assert expected <= names


@built
def test_wheel_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith("dist-info/entry_points.txt"))
        commands = archive.read(entry_points).decode()
    version = importlib.metadata.version("vae_fast")
    assert {name.split("/")[0] for name in names} == {"vae_fast", f"vae_fast-{version}.dist-info"}
    modules = [name for name in names if name.endswith((".so", ".pyd"))]
    assert [name for name in modules if not name.startswith("vae_fast/_C.")] == []
    assert len(modules) == 1
    assert "vae-fast = vae_fast.cli:main" in commands
    assert f"vae_fast-{version}.dist-info/licenses/LICENSE" in names
    assert "vae_fast/py.typed" in names
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vae_fast").rglob("*.py")}
    expected |= {f"vae_fast/{path.relative_to(ROOT)}" for path in (ROOT / "kernels").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == expected


@built
def test_module_needs_neither_torch_nor_a_second_openmp(wheel: Path, tmp_path: Path) -> None:
    """No symbol of torch is undefined in it: an upgrade of torch has nothing to break."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".so"))
        module = archive.extract(name, tmp_path)
    symbols = run("nm", "-D", "-C", "--undefined-only", module, cwd=tmp_path)
    assert "Py" in symbols
    assert re.findall(r".*(?:at::|c10|torch|THP|aoti).*", symbols) == []
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", module, cwd=tmp_path))
    assert [name for name in needed if "omp" in name] == ["libgomp.so.1"]
    assert [name for name in needed if re.search("torch|c10|python|cuda", name)] == []
    exported = run("nm", "-D", "--defined-only", module, cwd=tmp_path).split()
    assert exported[-1] == "PyInit__C"
    assert len(exported) == 3


TRAINING_STEP = """
import re, torch, vae_fast, vae_fast.kernels
model = vae_fast.FusedVAE(64, latent_dim=8, hidden_dims=(32,), backend="cpu")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
x = torch.rand(16, 64)
before = model(x, seed=0).loss
before.backward()
optimizer.step()
print(vae_fast.__file__)
print("decreased", bool(model(x, seed=0).loss < before))
with open("/proc/self/maps") as maps:
    print("openmp", len(set(re.findall(r"/\\S*lib(?:gomp|omp|iomp5)\\S*", maps.read()))))
"""


@built
def test_training_step_with_one_openmp_runtime(python: Path, place: Path) -> None:
    out = run(python, "-I", "-c", TRAINING_STEP, cwd=place)
    assert out.splitlines()[0].startswith(str(python.parents[1]))
    assert out.splitlines()[1:] == ["decreased True", "openmp 1"]


@built
def test_command_without_the_extras(python: Path, place: Path) -> None:
    out = run(python.parent / "vae-fast", "doctor", cwd=place)
    assert importlib.metadata.version("vae_fast") in out


WHERE = """
import vae_fast, vae_fast.kernels
print(vae_fast.__file__)
print(vae_fast.kernels.__file__)
print(vae_fast.backends()["cpu"])
"""


@built
def test_in_the_folder_it_was_installed_from(python: Path, source: Path) -> None:
    """There Python finds the source tree first, and with it all that was built."""
    package, kernels, cpu = run(python, "-c", WHERE, cwd=source).splitlines()
    assert package == str(source / "vae_fast" / "__init__.py")
    assert kernels == str(source / "kernels" / "__init__.py")
    assert "available=True" in cpu


@built
def test_in_a_folder_nothing_was_built_in(python: Path, source: Path, tmp_path: Path) -> None:
    ignore = shutil.ignore_patterns("*.so", "build")
    tree = shutil.copytree(source, tmp_path / "tree", ignore=ignore)
    cpu = run(python, "-c", WHERE, cwd=tree).splitlines()[-1]
    assert "available=False" in cpu
    assert "pip install -e ." in cpu


@built
def test_editable_installation(wheel: Path, source: Path, place: Path) -> None:
    python = clean_environment(place / "editable")
    install(python, "-e", source)
    for folder in (place, source):
        package, kernels, cpu = run(python, "-c", WHERE, cwd=folder).splitlines()
        assert package == str(source / "vae_fast" / "__init__.py")
        assert kernels == str(source / "kernels" / "__init__.py")
        assert "available=True" in cpu


@built
def test_installation_without_the_compiled_module(source: Path, tmp_path: Path) -> None:
    tree = shutil.copytree(source, tmp_path / "tree", ignore=shutil.ignore_patterns("build"))
    (tmp_path / "wheel").mkdir()
    wheel = build_wheel(tree, tmp_path / "wheel", VAE_FAST_NATIVE="0")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith(".so")] == []
    assert list(tree.rglob("*.so")) == []


@built
def test_wrong_build_setting(source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source]
    out = run(*command, cwd=tmp_path, code=1, VAE_FAST_CUDA="yes")
    assert "VAE_FAST_CUDA must be auto, on or off; it is 'yes'" in out


def test_pinned_tools_agree() -> None:
    """pre-commit and `make lint` run the same versions."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    pins = re.findall(r"[\w-]+==[\w.]+", hooks)
    assert pins
    assert set(pins) <= set((ROOT / "constraints.txt").read_text().split())
