"""The Triton kernels: on a GPU that Triton compiles for, or on the CPU in Triton's interpreter.

The functions are those of ``vae_fast.kernels``, where the arguments' shapes stand.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import torch

import vae_fast
from vae_fast._backends import Unavailable

_ROOT = Path(__file__).resolve().parents[2]
if not (_ROOT / "vae_fast" / "kernels").exists():  # the source tree, where they stand beside it
    vae_fast.__path__.append(str(_ROOT))

# Decided once, when triton is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# Run where this backend is asked for by name, but never as a device's default.
BY_NAME = ("cpu",) if INTERPRETED else ()


def _why_not() -> Unavailable | None:
    if importlib.util.find_spec("triton") is None:
        return Unavailable("triton is not installed", "install it: `pip install triton`")
    if INTERPRETED or torch.cuda.is_available() or torch.xpu.is_available():
        return None
    return Unavailable(
        "torch finds no GPU",
        "run on a machine with a GPU, with a torch built for it; or set TRITON_INTERPRET=1 before "
        "Python starts, which tests the kernels on the CPU, thousands of times slower",
    )


_missing = _why_not()

if _missing is None:
    from vae_fast.kernels.gaussian_kl import gaussian_kl_backward, gaussian_kl_forward
    from vae_fast.kernels.gaussian_log_likelihood import (
        gaussian_log_likelihood_backward,
        gaussian_log_likelihood_forward,
        squared_error_backward,
        squared_error_forward,
    )
    from vae_fast.kernels.importance_weighted_elbo import importance_weighted_elbo_forward
    from vae_fast.kernels.negative_elbo import negative_elbo_backward, negative_elbo_forward
    from vae_fast.kernels.noise import noise
    from vae_fast.kernels.sample_kl import sample_kl_backward, sample_kl_forward
    from vae_fast.kernels.sample_log_weights import (
        sample_log_weights_backward,
        sample_log_weights_forward,
    )
    from vae_fast.kernels.scale import scale_
    from vae_fast.kernels.score_function import score_function_backward


__all__ = (
    "gaussian_kl_backward",
    "gaussian_kl_forward",
    "gaussian_log_likelihood_backward",
    "gaussian_log_likelihood_forward",
    "importance_weighted_elbo_forward",
    "negative_elbo_backward",
    "negative_elbo_forward",
    "noise",
    "sample_kl_backward",
    "sample_kl_forward",
    "sample_log_weights_backward",
    "sample_log_weights_forward",
    "scale_",
    "score_function_backward",
    "squared_error_backward",
    "squared_error_forward",
    "unavailable",
)


def unavailable() -> Unavailable | None:
    return _missing
