"""The backends: which there are, which can run here, and which one a call gets.

A backend is one module of this package with the same few functions (``<op>_forward``,
``<op>_backward``, ``noise``, ``scale_``, ``unavailable``). A new backend is a module and a row of
the table.
"""

from __future__ import annotations

import importlib
import os
from types import MappingProxyType, ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vae_fast.errors import BackendUnavailableError

# Of each gradient: whether it is needed, or the tensor that it has to be written to.
Needs = tuple[bool | Tensor, ...]
# In place of a backend's name: the reference's formulas, for someone who has to see through them.
COMPOSED = "composed"
# Whose calls are plain PyTorch to someone who traces or wraps them.
SEEN_THROUGH = (COMPOSED, "reference")


class BackendStatus(NamedTuple):
    """What ``vae_fast.backends()`` says of one backend."""

    name: str
    available: bool
    devices: tuple[str, ...]  # device types of the tensors that it runs
    reason: str  # why it is not available; empty where it is
    remedy: str  # what to do about it; empty where it is


class Unavailable(NamedTuple):
    reason: str
    remedy: str


class _Entry(NamedTuple):
    devices: tuple[str, ...]  # empty: any device
    summary: str


# In order of preference: the first available one that runs a tensor's device is its default.
_TABLE = MappingProxyType(
    {
        "cuda": _Entry(("cuda",), "hand-written CUDA C++ kernels"),
        "triton": _Entry(("cuda", "xpu"), "Triton kernels"),
        "cpu": _Entry(("cpu",), "compiled, vectorised C++ kernels"),
        "reference": _Entry((), "plain PyTorch"),
    }
)


def _check_name(name: str, source: str) -> str:
    if name not in _TABLE:
        raise ValueError(f"{source} must be one of {', '.join(map(repr, _TABLE))}; got {name!r}")
    return name


_ENVIRONMENT_DEFAULT = os.environ.get("VAE_FAST_BACKEND") or None
_loaded: dict[str, ModuleType | Unavailable] = {}


def _load(name: str) -> ModuleType | Unavailable:
    if name not in _loaded:
        path = f"{__name__}.{name}"
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
            _loaded[name] = Unavailable(
                "this version of vae_fast does not have it", "use another backend"
            )
        else:
            _loaded[name] = module.unavailable() or module
    return _loaded[name]


def _by_name(loaded: ModuleType | Unavailable) -> tuple[str, ...]:
    """Devices that a backend runs where it is asked for by name, beside those of the table."""
    return getattr(loaded, "BY_NAME", ())


def backends() -> dict[str, BackendStatus]:
    """Every backend by name, with whether it is available here and, where not, why and what to do.

    Returns:
        ``{name: BackendStatus(name, available, devices, reason, remedy)}`` in order of preference.
    """
    status = {}
    for name, entry in _TABLE.items():
        loaded = _load(name)
        missing = loaded if isinstance(loaded, Unavailable) else Unavailable("", "")
        devices = (*entry.devices, *_by_name(loaded)) or ("any",)
        status[name] = BackendStatus(name, not missing.reason, devices, *missing)
    return status


def get(name: str) -> ModuleType:
    """The backend's module; BackendUnavailableError where it cannot be loaded."""
    loaded = _loaded.get(name)
    if type(loaded) is ModuleType:  # in the shortest time
        return loaded
    loaded = _load(name)
    if isinstance(loaded, Unavailable):
        raise BackendUnavailableError(
            f"backend {name!r} ({_TABLE[name].summary}) is not available: {loaded.reason}; "
            f"{loaded.remedy}"
        )
    return loaded


# Who has to see through a call: nobody; an exporter, or forward-mode derivatives; a transform of
# torch.func, whose tensors no kernel can read.
_NOBODY, _SOMEBODY, _TRANSFORM = 0, 1, 2


def is_recorded() -> bool:
    """Whether the call becomes a program (``torch.export``, ``torch.jit.trace``), which keeps what
    is computed, and no Python and no autograd.Function."""
    if torch.compiler.is_exporting():
        return True
    return not torch.compiler.is_dynamo_compiling() and torch._C._get_tracing_state() is not None


def transform_error(name: str | None) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"backend {name!r} cannot run under torch.func's transforms (grad, vmap, ...); use "
        'backend="reference" there, or torch.autograd'
    )


def _choose(asked: str | None, device_type: str, watch: int) -> str:
    if asked is None and _ENVIRONMENT_DEFAULT is not None:
        asked = _check_name(_ENVIRONMENT_DEFAULT, "the environment variable VAE_FAST_BACKEND")
    elif asked is not None:
        _check_name(asked, "backend")
    if watch != _NOBODY and asked in (None, "reference"):
        return COMPOSED
    if watch == _TRANSFORM:
        raise transform_error(asked)
    if asked is None:
        return next(
            name
            for name, entry in _TABLE.items()
            if (not entry.devices or device_type in entry.devices)
            and not isinstance(_load(name), Unavailable)
        )
    by_name = _by_name(get(asked))
    devices = _TABLE[asked].devices
    if devices and device_type not in (*devices, *by_name):
        raise BackendUnavailableError(
            f"backend {asked!r} runs tensors on {' or '.join(devices)}; these are on "
            f"{device_type}; move them there, or use backend=None for the best that runs them"
        )
    return asked


_choices: dict[tuple[str | None, torch.device, int], str] = {}


def choose(asked: str | None, device: torch.device) -> str:
    """The name of the backend for tensors on ``device``; or COMPOSED, where someone has to see
    through the call and no other backend was asked for.

    Raises:
        ValueError: ``asked``, or VAE_FAST_BACKEND where it is None, is not a backend's name.
        BackendUnavailableError: that backend is not available, runs another device, or has no
            rules for an active torch.func transform.
    """
    if torch._C._are_functorch_transforms_active():
        watch = _TRANSFORM
    else:
        exported = torch.compiler.is_exporting()
        watch = _SOMEBODY if exported or forward_ad._current_level >= 0 else _NOBODY
    key = (asked, device, watch)  # not device.type, which makes a string at each call
    name = _choices.get(key)
    if name is None:
        name = _choices[key] = _choose(asked, device.type, watch)
    return name


# What torch.compiler.assume_constant_result sets; calling that would import the whole compiler.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]
