"""Triton's interpreter, put right where it does not do what every GPU does.

``tl.store`` of float32 values to bfloat16 rounds to nearest on a GPU. The interpreter of Triton 3.6
to 3.9 cuts the bits off instead, and loses the carry where it is asked to round; of a float64 value
it takes the integer part for the bits. Nor does a GPU warn of overflow and of invalid operations,
as NumPy does.

Nor does one add a block's values one after another, as NumPy does along any axis but the last.

The bound of a loop is an array of one element, which Triton 3.6 asks NumPy to convert to an int as
if it were a scalar. NumPy warns of that from 1.25 on, and refuses it from 2.4 on.

And made faster: a program takes as long for few elements as for many, and each call of a function
from another prepares Triton's language anew, as the launch has already done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16, ties to even; a NaN stays one."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


TILE = 1 << 15  # elements; test_triton.py has tiles as they are shipped, and small ones


def install() -> None:
    convert = interpreter._convert_float

    def converted(values: np.ndarray, source: tl.dtype, target: tl.dtype, rounding: Any) -> Any:
        if source == tl.float32 and target == tl.bfloat16:
            return round_to_bfloat16(values)
        return convert(values, source, target, rounding)

    interpreter._convert_float = converted
    cast = interpreter.InterpreterBuilder.cast_impl

    def cast_in_steps(self: Any, values: Any, target: tl.dtype) -> Any:
        if values.dtype.scalar == tl.float64 and target.scalar == tl.bfloat16:
            single = interpreter.TensorHandle(values.data.astype(np.float32), tl.float32)
            return cast(self, single, target)
        return cast(self, values, target)

    interpreter.InterpreterBuilder.cast_impl = cast_in_steps
    execute = interpreter.GridExecutor.__call__

    def executed(*arguments: Any, **options: Any) -> None:
        with np.errstate(all="ignore"):
            execute(*arguments, **options)

    interpreter.GridExecutor.__call__ = executed

    def summed(self: Any, values: Any) -> Any:
        data = values.handle.data
        axis = tuple(range(data.ndim)) if self.axis is None else (self.axis,)
        last = np.moveaxis(data, axis, range(-len(axis), 0))
        flat = np.ascontiguousarray(last).reshape(*last.shape[: data.ndim - len(axis)], -1)
        total = flat.sum(axis=-1, dtype=data.dtype)  # pairs of pairs
        total = np.expand_dims(total, axis) if self.keep_dims else total
        return self.to_tensor(total, values.dtype)

    interpreter.ReduceOps.sum = summed
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    interpreter._patch_lang_tensor = patched
    call = interpreter.InterpretedFunction.__call__

    def called(self: Any, *arguments: Any, **options: Any) -> Any:
        if any(value is tl.core for value in self.fn.__globals__.values()):
            return call(self, *arguments, **options)  # Triton's own, which need more than `tl`
        return self.rewrite()(*arguments, **options)

    interpreter.InterpretedFunction.__call__ = called


def enlarge_tiles() -> None:
    from vae_fast.kernels import importance_weighted_elbo, launch

    launch.TILE = launch.SMALL_TILE = TILE
    importance_weighted_elbo.WEIGHT_ROWS, importance_weighted_elbo.WEIGHT_TILE = TILE // 16, TILE
