"""What a measurement was taken on."""

from __future__ import annotations

import importlib
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

import vae_fast
from bench import device
from bench.device import Setting
from vae_fast import _backends


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def cores() -> int:
    """That this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def accelerator(setting: Setting) -> str | None:
    if setting.kind == "cpu":
        return None
    return str(device.module(setting.device).get_device_name(setting.device))


def describe(setting: Setting) -> dict[str, Any]:
    try:
        build = importlib.import_module("vae_fast._C").build_info()
    except ImportError:  # built with VAE_FAST_NATIVE=0
        build = {"compiler": "none", "flags": "", "instruction_set": "none"}
    return {
        "device": processor(),
        "accelerator": accelerator(setting),
        "backend": _backends.choose(setting.backend, torch.device(setting.device)),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vae_fast": vae_fast.__version__,
        "compiler": build["compiler"],
        "flags": build["flags"],
        "instruction_set": build["instruction_set"],
    }


def title(description: dict[str, Any]) -> str:
    """For a heading or a picture."""
    return description["accelerator"] or f"{description['device']}, {description['cores']} cores"


def slug(description: dict[str, Any]) -> str:
    """A file name for it; other backends than the device's first have their own."""
    words = f"{description['device']} {description['cores']} cores {description['instruction_set']}"
    if description["accelerator"]:
        words = f"{description['accelerator']} {description['backend']}"
    elif description["backend"] != "cpu":
        words += f" {description['backend']}"
    return file_name(words)


def file_name(words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
