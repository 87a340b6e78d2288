"""What a measurement was taken on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

import vae_fast
from vae_fast import _C


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


def describe() -> dict[str, Any]:
    build = _C.build_info()
    return {
        "device": processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vae_fast": vae_fast.__version__,
        "compiler": build["compiler"],
        "flags": build["flags"],
        "instruction_set": build["instruction_set"],
    }


def slug(description: dict[str, Any]) -> str:
    """A file name for it."""
    words = f"{description['device']} {description['cores']} cores {description['instruction_set']}"
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
