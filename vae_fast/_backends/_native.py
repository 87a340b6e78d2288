"""The compiled module ``vae_fast._C``, connected with torch's tensors.

Its functions take tensors as they are, whatever their strides, and read them through DLPack's
exchange table (``csrc/bindings/tensors.h``); calls of their methods from Python would cost a small
op more than its kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_fast import memory
from vae_fast._backends import Unavailable
from vae_fast._broadcast import reduction
from vae_fast._storage import PLAIN, UnreadableError

# As in csrc/common/types.h.
DTYPE_CODES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
REDUCTION_CODES = {"mean": 0, "sum": 1, "none": 2}

_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}


def _make_large(shape: tuple[int, ...], code: int) -> Tensor:
    return memory.empty(shape, _DTYPES[code])


def refuse(tensor: object, reason: str, fits: bool = True) -> None:
    """Raises the error of a tensor that kernels cannot read; or that does not fit the others."""
    what = type(tensor).__name__
    if isinstance(tensor, Tensor):
        what += f" of {tensor.dtype}, {tensor.layout}, on {tensor.device}"
    raise (UnreadableError if fits else TypeError)(
        "the compiled kernels read strided tensors of float64, float32, float16 or bfloat16 whose "
        f"memory is there; got a {what}: {reason}"
    )


def connect(module: Any) -> Unavailable | None:
    """Tells ``module`` where tensors come from; what to say where that cannot be done."""
    table = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    if table is not None and module.connect(
        table, _make_large, memory.SMALLEST, PLAIN, torch.UntypedStorage, torch.get_num_threads,
        reduction, refuse,
    ):  # fmt: skip
        return None
    return Unavailable(
        f"torch {torch.__version__} has no DLPack exchange table of version 1, by which the "
        "kernels read tensors",
        "install torch 2.11 or later, or a vae_fast made for this one",
    )


module: Any = None
try:
    from vae_fast import _C as module
except ImportError as error:
    missing: Unavailable | None = Unavailable(
        f"the compiled module vae_fast._C cannot be imported ({error})",
        "install with a C++ compiler at hand and without VAE_FAST_NATIVE=0: `pip install .`, or "
        "`pip install -e .` to work in the source tree",
    )
else:
    missing = connect(module)
