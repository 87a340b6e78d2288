"""What every test runs under: the backends, uninitialised memory that is NaN, fixed examples."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

# Read when torch is imported. Threads that wait for others sleep: as many processes as there are
# cores run tests side by side, and one that spun would take its core from another's work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# The compiler's cache on disk knows an op by its name alone: an older version may have filled it.
os.environ.setdefault("TORCHINDUCTOR_AUTOGRAD_CACHE", "0")

import cuda_host
import hypothesis
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

GPUS = tuple(kind for kind in ("cuda", "xpu") if torch.get_device_module(kind).is_available())
if not GPUS:  # then Triton's interpreter runs its kernels; read when triton is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

import vae_fast  # noqa: E402
from vae_fast import _backends  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED and importlib.util.find_spec("triton") is not None:
    import interpreter

    interpreter.install()
    if vae_fast.backends()["triton"].available:
        interpreter.enlarge_tiles()

hypothesis.settings.register_profile(
    "fixed",  # the same examples in every run
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.register_profile(
    "search", hypothesis.settings.get_profile("fixed"), derandomize=False, max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


# Their tests share what is costly to make, so that one process has to run them all.
TOGETHER = ("test_cli_commands", "test_cli_errors", "test_packaging", "test_training_resume")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which may not be there
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Sends tests one by one, and those of the files above as one."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if Path(file).stem in TOGETHER else nodeid

    return Scheduling(config, log)


class Backend(NamedTuple):
    """A backend under test and the device of its tensors. A new backend adds a row."""

    name: str | None  # None: whichever the package chooses
    device: str

    def repeats(self, count: int) -> int:
        """How often a test of chance is repeated: less often where a call takes milliseconds."""
        return min(count, 300) if self.name == "triton" and INTERPRETED else count


BACKENDS = (
    Backend("reference", "cpu"),
    Backend("cpu", "cpu"),
    Backend(cuda_host.NAME, "cpu"),  # the CUDA kernels' own sources, run by the CPU
    *([Backend("cuda", "cuda")] if torch.cuda.is_available() else []),
    *(Backend("triton", device) for device in GPUS or ("cpu",)),
)


def require(backend: Backend) -> None:
    """Skips where the backend cannot run, except that the compiled one must be there."""
    if backend.name == cuda_host.NAME:
        return
    status = vae_fast.backends()[backend.name]
    if status.available:
        return
    message = f"backend {backend.name!r} is not available: {status.reason}"
    if backend.name == "cpu" and os.environ.get("VAE_FAST_NATIVE") != "0":
        pytest.fail(f"{message}; only an installation with VAE_FAST_NATIVE=0 goes without it")
    pytest.skip(message)


def add_backend(monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType) -> None:
    """A backend more, for tensors on the CPU: the last choice, so that it has to be named."""
    table = {**_backends._TABLE, name: _backends._Entry(("cpu",), "for the tests")}
    monkeypatch.setattr(_backends, "_TABLE", MappingProxyType(table))
    monkeypatch.setitem(_backends._loaded, name, module)


@pytest.fixture(params=BACKENDS, ids=lambda backend: f"{backend.name}-{backend.device}")
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    require(request.param)
    if request.param.name == cuda_host.NAME:
        add_backend(monkeypatch, cuda_host.NAME, cuda_host.backend())
    return request.param


class Dispatching(TorchDispatchMode):
    """Under it ops are called as registered ones, as wherever somebody looks at what is called."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=(nullcontext, Dispatching), ids=("eager", "dispatched"))
def way(request: pytest.FixtureRequest) -> AbstractContextManager[Any]:
    """Within it, an op is called outside the dispatcher or through it."""
    return request.param()


@pytest.fixture
def compiled_backend() -> Backend:
    """The C++ backend, for what plain PyTorch neither promises nor does."""
    chosen = Backend("cpu", "cpu")
    require(chosen)
    return chosen


@pytest.fixture(params=("cuda", "triton"))
def gpu_backend(request: pytest.FixtureRequest) -> str:
    """Each fused backend of a GPU, for tests of what only a GPU has."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    require(Backend(request.param, "cuda"))
    return request.param


@pytest.fixture(autouse=True)
def nan_filled_memory() -> Iterator[None]:
    """Every new tensor of a floating dtype holds NaN until somebody writes to it."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20220401)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a finished run."""
    from command import TINY_ARGUMENTS, files

    from vae_fast.cli import main

    folder = tmp_path_factory.mktemp("made")
    assert main(["train", f"--out={folder}", *TINY_ARGUMENTS]) == 0
    return files(folder)


@pytest.fixture
def run(tmp_path: Path, made: dict[str, bytes]) -> Path:
    """The folder of a finished run."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return folder
