"""Whether the CUDA backend can run here, and why not."""

from __future__ import annotations

from typing import Any

import torch

from vae_fast._backends import Unavailable


def has_code(capability: tuple[int, int], architectures: str) -> bool:
    """Whether a device can run code built for ``architectures``, a list as CMake writes it.

    Machine code (``90-real``) runs on devices of its own major version from its minor one on; PTX
    (``90-virtual``) on every later device; a bare number is both.
    """
    device = 10 * capability[0] + capability[1]
    for entry in architectures.split():
        number, _, kind = entry.partition("-")
        built = int(number.rstrip("af"))
        if kind != "virtual" and built // 10 == capability[0] and built <= device:
            return True
        if kind != "real" and built <= device:
            return True
    return False


def unavailable(kernels: Any, info: dict[str, str]) -> Unavailable | None:
    """``kernels``: the module's CUDA part, None where it has none; ``info``: its build_info()."""
    if kernels is None:
        return Unavailable(
            "the compiled module was built without CUDA",
            "install again with nvcc on PATH, or CUDA_HOME or CUDACXX set, and VAE_FAST_CUDA=on",
        )
    if torch.version.cuda is None:
        return Unavailable(
            "this torch is built without CUDA, so it has no tensors on a GPU",
            "install a torch built with CUDA",
        )
    driver, needed = kernels.driver_version(), int(info["cuda_version"].partition(".")[0])
    if driver == 0:
        return Unavailable("no NVIDIA driver was found", "install the driver, and see nvidia-smi")
    if driver // 1000 < needed:
        return Unavailable(
            f"the NVIDIA driver runs CUDA {driver // 1000}.{driver % 1000 // 10}, and the module "
            f"was built with {info['cuda_version']}",
            f"update the driver, or install again with the nvcc of CUDA {driver // 1000}",
        )
    if not torch.cuda.is_available():
        return Unavailable("torch finds no GPU", "see nvidia-smi, and CUDA_VISIBLE_DEVICES")
    found = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
    if not any(has_code(capability, info["cuda_architectures"]) for capability in found):
        names = ", ".join(f"{major}.{minor}" for major, minor in found)
        return Unavailable(
            f"the module has code for {info['cuda_architectures']}, and none for compute "
            f"capability {names}",
            "install again with CUDAARCHS=native",
        )
    return None
