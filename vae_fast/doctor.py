"""`vae-fast doctor`: what is installed here, and why a backend that does not run does not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform

import torch

from vae_fast import backends, functional
from vae_fast._version import __version__
from vae_fast.errors import BackendUnavailableError

PACKAGES = (
    "torch", "triton", "numpy", "lightning", "scikit-learn", "matplotlib", "safetensors", "pillow",
)  # fmt: skip
LABEL = 18


def _line(label: str, text: object) -> str:
    return f"  {label:<{LABEL}} {text}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _packages() -> list[str]:
    lines = [
        _line("vae_fast", __version__),
        _line("python", f"{platform.python_version()}, {platform.platform()}"),
    ]
    for package in PACKAGES:
        text = _version(package)
        if package == "torch":
            cuda = torch.version.cuda
            text += f", built with CUDA {cuda}" if cuda else ", built without CUDA"
        lines.append(_line(package, text))
    return lines


def _native() -> list[str]:
    """What the compiled module says of itself: its compiler, flags and instruction sets."""
    try:
        native = importlib.import_module("vae_fast._C")
    except ImportError as error:
        return [_line("not there", error)]
    return [
        _line(name.replace("_", " "), value or "none")
        for name, value in native.build_info().items()
    ]


def _devices() -> list[str]:
    """The backend that a call with none asked for gets on each device, tried out."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    lines = []
    for name in names:
        label = name if name == "cpu" else f"{name} {torch.cuda.get_device_name(name)}"
        lines.append(_line(label, _default_backend(name)))
    if len(names) == 1:
        lines.append(_line("cuda", "no device that torch can use"))
    return lines


def _default_backend(device: str) -> str:
    kind = torch.device(device).type
    asked = os.environ.get("VAE_FAST_BACKEND") or None
    order = [asked] if asked else [name for name, status in backends().items() if status.available]
    for name in order:
        try:
            functional.noise((1, 1), seed=0, device=device, backend=name)
        except (BackendUnavailableError, ValueError) as error:
            if asked:
                return f"none: VAE_FAST_BACKEND={asked}: {error}"
            continue
        return f"{name} (VAE_FAST_BACKEND)" if asked else name
    return f"none runs tensors on {kind}"


def _backends() -> list[str]:
    lines = []
    for name, status in backends().items():
        if status.available:
            lines.append(_line(name, f"available, for tensors on {' or '.join(status.devices)}"))
        else:
            lines.append(_line(name, f"not available: {status.reason}"))
            lines.append(_line("", f"remedy: {status.remedy}"))
    return lines


def report() -> str:
    """The whole text."""
    sections = {
        "versions": _packages(),
        "compiled module": _native(),
        "backends, in order of preference": _backends(),
        "what each device gets": _devices(),
    }
    return "\n".join(line for title, lines in sections.items() for line in (title, *lines))
