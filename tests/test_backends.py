"""Which backend a call gets, and what is said where it cannot have the one it asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import INTERPRETED, Backend

import vae_fast
import vae_fast.functional as F
from vae_fast import BackendUnavailableError

NAMES = ("cuda", "triton", "cpu", "reference")


def fresh(code: str, before: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new interpreter: the environment is read when the package is imported."""
    variables = {k: v for k, v in os.environ.items() if k != "VAE_FAST_BACKEND"}
    imports = "import vae_fast, vae_fast.functional as F\n"
    return subprocess.run(
        [sys.executable, "-c", f"import torch; z = torch.zeros(2, 3)\n{before}{imports}{code}"],
        env=variables | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_backend_has_a_status() -> None:
    status = vae_fast.backends()
    assert tuple(status) == NAMES
    for name, entry in status.items():
        assert entry.name == name and entry.devices
        assert bool(entry.reason) == bool(entry.remedy) == (not entry.available)
    assert status["reference"].available


def test_the_table_cannot_be_changed_from_outside() -> None:
    vae_fast.backends().clear()
    assert tuple(vae_fast.backends()) == NAMES


def calls() -> list:
    tensor = torch.zeros(2, 3)
    return [
        lambda **k: F.sample_kl(tensor, tensor, **k),
        lambda **k: F.gaussian_kl(tensor, tensor, **k),
        lambda **k: F.gaussian_log_likelihood(tensor, tensor, **k),
        lambda **k: F.negative_elbo(tensor, tensor, None, tensor[:, 0], **k),
        lambda **k: F.noise((2, 3), seed=0, dtype=torch.float32, device="cpu", **k),
        lambda **k: F.squared_error(tensor, tensor, **k),
        lambda **k: F.sample_log_weights(tensor, tensor, **k),
        lambda **k: F.importance_weighted_elbo(tensor, **k),
        lambda **k: F.score_function(tensor[:, 0], tensor, tensor, seed=0, **k),
    ]


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("name", ["tpu", "CPU", "", "cuda "])
def test_an_unknown_name(name: str, index: int) -> None:
    with pytest.raises(ValueError, match=rf"backend must be one of {', '.join(map(repr, NAMES))}"
                       rf".*got {name!r}"):  # fmt: skip
        calls()[index](backend=name)


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("name", ["cuda"] if INTERPRETED else ["cuda", "triton"])
def test_a_backend_that_cannot_run_says_why_and_what_to_do(name: str, index: int) -> None:
    """Tensors on the CPU: whether or not the backend is there, these it does not run."""
    with pytest.raises(BackendUnavailableError) as raised:
        calls()[index](backend=name)
    message = str(raised.value)
    status = vae_fast.backends()[name]
    assert repr(name) in message
    assert "cpu" in message or (status.reason in message and status.remedy in message)
    assert isinstance(raised.value, RuntimeError)


@pytest.mark.parametrize("op", ["gaussian_kl", "gaussian_log_likelihood", "squared_error"])
def test_the_compiled_backend_refuses_tensors_of_other_devices(
    op: str, compiled_backend: Backend
) -> None:
    tensor = torch.zeros(2, 3, device="meta")
    with pytest.raises(BackendUnavailableError, match=r"'cpu' .*meta"):
        getattr(F, op)(tensor, tensor, backend=compiled_backend.name)


def test_the_best_backend_runs_where_none_is_named() -> None:
    """On a CPU the compiled one where it is there: same bits, and not the reference's."""
    if not vae_fast.backends()["cpu"].available:
        pytest.skip("the compiled backend is not installed")
    if os.environ.get("VAE_FAST_BACKEND"):
        pytest.skip("VAE_FAST_BACKEND names one")
    mean, logvar = torch.randn(301, 77), torch.randn(301, 77)
    default = F.gaussian_kl(mean, logvar)
    assert torch.equal(default, F.gaussian_kl(mean, logvar, backend="cpu"))
    assert not torch.equal(default, F.gaussian_kl(mean, logvar, backend="reference"))


NO_MODULE = "import sys; sys.modules['vae_fast._C'] = None\n"
NO_TABLE = "import torch; del torch.Tensor.__dlpack_c_exchange_api__\n"
OTHER_TABLE = """
import ctypes, torch
table = (ctypes.c_uint32 * 32)(99)  # a major version, and nothing older behind it
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
torch.Tensor.__dlpack_c_exchange_api__ = new(ctypes.addressof(table), b"dlpack_exchange_api", None)
"""


@pytest.mark.parametrize(
    ("hide", "reason", "remedy"),
    [
        (NO_MODULE, "_C", "install with a C++ compiler"),
        (NO_TABLE, "no DLPack exchange table", "torch 2.11"),
        (OTHER_TABLE, "no DLPack exchange table of version 1", "torch 2.11"),
    ],
    ids=["module", "table", "version"],
)
def test_without_the_compiled_module(hide: str, reason: str, remedy: str) -> None:
    """The next best where no backend is named; an error, and no fallback, where it is."""
    code = """
import json
F.gaussian_kl(z, z)
try:
    F.gaussian_kl(z, z, backend="cpu")
except vae_fast.BackendUnavailableError as error:
    print(json.dumps([vae_fast.backends()["cpu"]._asdict(), str(error)]))
"""
    ran = fresh(code, before=hide, VAE_FAST_BACKEND="")  # an empty name is none
    assert ran.returncode == 0, ran.stderr
    status, message = json.loads(ran.stdout)
    assert not status["available"] and reason in status["reason"] and remedy in status["remedy"]
    assert status["reason"] in message and status["remedy"] in message


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_the_environment_names_the_default(name: str) -> None:
    if not vae_fast.backends()[name].available:
        pytest.skip(f"backend {name!r} is not available")
    code = (
        "torch.manual_seed(0); a, b = torch.randn(301, 77), torch.randn(301, 77)\n"
        "import json\n"
        "print(json.dumps([torch.equal(F.gaussian_kl(a, b), F.gaussian_kl(a, b, backend=n))"
        " for n in ('reference', 'cpu')]))"
    )
    ran = fresh(code, VAE_FAST_BACKEND=name)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [name == "reference", name == "cpu"]


def test_an_unavailable_default_is_no_fallback_but_can_be_overridden() -> None:
    code = "F.gaussian_kl(z, z, backend='reference'); print('ran'); F.gaussian_kl(z, z)"
    ran = fresh(code, VAE_FAST_BACKEND="cuda")
    assert ran.returncode != 0 and ran.stdout.strip() == "ran"
    last = ran.stderr.strip().splitlines()[-1]
    assert "BackendUnavailableError" in last and "'cuda'" in last


def test_an_unknown_default() -> None:
    ran = fresh("F.gaussian_kl(z, z)", VAE_FAST_BACKEND="gpu")
    assert ran.returncode != 0
    assert "ValueError" in ran.stderr
    assert "VAE_FAST_BACKEND" in ran.stderr and "'gpu'" in ran.stderr


DEFAULT_DEVICE = """
import torch
import vae_fast.functional as F

x, mean, logvar = (torch.rand(3, 4) for _ in range(3))
leaves = [mean.requires_grad_(), logvar.requires_grad_()]

def everything():
    z, kl = F.sample_kl(mean, logvar, num_samples=2, seed=1, backend="cpu")
    ll = F.gaussian_log_likelihood(x, mean, logvar, backend="cpu")
    losses = [F.negative_elbo(x, mean, logvar, kl, reduction=r, backend="cpu").sum()
              for r in ("mean", "none")]
    z2, ratio = F.sample_log_weights(mean, logvar, num_samples=2, seed=1, estimator="dreg",
                                     backend="cpu")
    bound, weights = F.importance_weighted_elbo(ratio, backend="cpu")
    signal = F.score_function(bound, mean, logvar, seed=1, backend="cpu")
    losses += [z2.sum(), weights.sum(), signal.sum()]
    losses += [F.squared_error(x, mean, backend="cpu").sum()]
    losses += [t.sum() for t in F.sample_kl(mean, logvar, seed=1, return_dims=True, backend="cpu")]
    total = z.sum() + F.gaussian_kl(mean, logvar, backend="cpu").sum() + ll.sum() + sum(losses)
    noise = F.noise((2, 3), seed=1, device="cpu", backend="cpu")
    return [total.detach(), noise, *torch.autograd.grad(total, leaves)]

want = everything()
torch.set_default_device("meta")
for got, expected in zip(everything(), want, strict=True):
    assert got.device.type == "cpu" and torch.equal(got, expected)
"""


def test_default_device_is_not_where_the_results_go(compiled_backend: Backend) -> None:
    """The kernels write to host memory, and a wrong device would be a write to nowhere."""
    done = subprocess.run([sys.executable, "-c", DEFAULT_DEVICE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
