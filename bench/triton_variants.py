"""Every variant of the Triton kernels, compiled ahead of time for a GPU that need not be there.

The launchers themselves decide what is compiled: ``compiled`` calls the backend's functions on
ordinary tensors, with a driver that names a GPU and does not launch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vae_fast._backends import Needs
from vae_fast._control import NO_CONTROL, KLControl

TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
BOUNDS = (-30.0, 20.0)
CONTROL = KLControl(0.25, 0.2, 0.8)
ALIGNED, ODD, SHORT, SHORT_ODD = (512, 8192), (512, 8191), (4096, 20), (4096, 7)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Variant(NamedTuple):
    """One call of one op."""

    op: str
    shape: tuple[int, int] = ALIGNED
    dtype: torch.dtype = torch.float32
    logvar: str = "full"
    prior: str | None = None  # of both its mean and its log-variance
    samples: int | None = None
    given: bool = False  # noise as an argument
    x: torch.dtype | None = None  # of the data, where not as mean
    controlled: bool = False  # a KL with free bits, a balance and its sums over the batch
    estimator: str = "reparameterization"  # of log-weights
    packed: bool = False  # mean and log-variance are halves of a tensor, and so are their gradients

    def __str__(self) -> str:
        given = [f"{k}={v}" for k, v in self._asdict().items() if v != self._field_defaults.get(k)]
        return " ".join(given).replace("torch.", "")


class Compiled(NamedTuple):
    variant: Variant
    kernel: str
    target: str
    asm: dict[str, Any]
    elements: int  # of a tile
    threads: int
    shared: int  # bytes


def _make(variant: Variant, kind: str) -> Tensor:
    rows, cols = variant.shape
    shapes = {"full": (rows, cols), "event": (cols,), "scalar": (), "row": (rows, 1)}
    return torch.empty(shapes[kind], dtype=variant.dtype)


def _pair(variant: Variant) -> tuple[Tensor, ...]:
    """Mean and log-variance."""
    if not variant.packed:
        return _make(variant, "full"), _make(variant, variant.logvar)
    rows, cols = variant.shape
    return torch.empty(rows, 2 * cols, dtype=variant.dtype).chunk(2, dim=1)


def _gradients(variant: Variant) -> Needs:
    """What of those is needed."""
    return _pair(variant) if variant.packed else (True, True)


def _encoder(variant: Variant) -> None:
    kernels = importlib.import_module(f"vae_fast.kernels.{variant.op}")
    forward = getattr(kernels, f"{variant.op}_forward")
    backward = getattr(kernels, f"{variant.op}_backward")
    rows, cols = variant.shape
    prior = (None,) * 2 if variant.prior is None else (_make(variant, variant.prior),) * 2
    given = (*_pair(variant), *prior)
    needs = (*_gradients(variant), *(tensor is not None for tensor in prior))
    grad_kl = torch.empty(rows)
    control = CONTROL if variant.controlled else NO_CONTROL
    if variant.op == "gaussian_kl":
        forward(*given, 1, BOUNDS, control)
        backward(grad_kl, *given, 1, BOUNDS, control, needs)
        return
    grad_dims = torch.empty(cols) if variant.controlled else None
    z, options = _sampling(variant)
    forward(*given, *options, BOUNDS, control, variant.controlled)
    backward(z, grad_kl, grad_dims, *given, *options, BOUNDS, control, needs)


def _sampling(variant: Variant) -> tuple[Tensor, tuple[Any, ...]]:
    """A tensor of z's form; and eps, the seed, the samples, the event's dimensions, the offset."""
    leading = () if variant.samples is None else (variant.samples,)
    z = torch.empty(*leading, *variant.shape, dtype=variant.dtype)
    eps, seed = (z, None) if variant.given else (None, torch.zeros((), dtype=torch.int64))
    return z, (eps, seed, variant.samples, 1, 0)


def _log_weights(variant: Variant) -> None:
    from vae_fast.kernels.sample_log_weights import (
        sample_log_weights_backward,
        sample_log_weights_forward,
    )

    prior = (None,) * 2 if variant.prior is None else (_make(variant, variant.prior),) * 2
    given = (*_pair(variant), *prior)
    z, options = _sampling(variant)
    grad = torch.empty(z.shape[:-1])
    share = grad if variant.estimator == "dreg" else None
    arguments: tuple[Any, ...] = (*given, *options, 0, BOUNDS)
    sample_log_weights_forward(*arguments)
    path_only = variant.estimator != "reparameterization"
    needs = (*_gradients(variant), *(tensor is not None for tensor in prior))
    arguments = (z, grad, share, *arguments, path_only, needs)
    sample_log_weights_backward(*arguments)


def _score_function(variant: Variant) -> None:
    from vae_fast.kernels.score_function import score_function_backward

    z, options = _sampling(variant)
    weight = torch.empty(z.shape[:-1])
    arguments = (weight, weight, *_pair(variant), *options, BOUNDS, _gradients(variant))
    score_function_backward(*arguments)


def _importance_weights(variant: Variant) -> None:
    from vae_fast.kernels.importance_weighted_elbo import importance_weighted_elbo_forward

    importance_weighted_elbo_forward(_make(variant, "full"))


def _squared_error(variant: Variant) -> None:
    from vae_fast.kernels.gaussian_log_likelihood import squared_error_forward

    x, mean = _make(variant, "full"), _make(variant, "full")
    squared_error_forward(x, mean, 1)


def _decoder(variant: Variant) -> None:
    from vae_fast.kernels.gaussian_log_likelihood import (
        gaussian_log_likelihood_backward,
        gaussian_log_likelihood_forward,
    )
    from vae_fast.kernels.negative_elbo import negative_elbo_backward, negative_elbo_forward

    rows, cols = variant.shape
    mean, logvar = _pair(variant)
    x = torch.empty(rows, cols, dtype=variant.x or variant.dtype)
    leading = () if variant.samples is None else (variant.samples,)
    if leading:
        mean, logvar = (t.expand(*leading, *t.shape).contiguous() for t in (mean, logvar))
    more = variant not in PLAIN  # what those are measured without
    learned = _gradients(variant)
    needs = (more, *learned)
    if variant.op == "gaussian_log_likelihood":
        gaussian_log_likelihood_forward(x, mean, logvar, 1, BOUNDS)
        grad = torch.empty(*leading, rows)
        gaussian_log_likelihood_backward(grad, x, mean, logvar, 1, BOUNDS, needs)
        return
    kl, grad_loss = torch.empty(rows), torch.empty(())
    negative_elbo_forward(x, mean, logvar, kl, 1.0, "mean", 1, BOUNDS, (*learned, True))
    if more:
        negative_elbo_forward(x, mean, logvar, kl, 1.0, "none", 1, BOUNDS, (False,) * 3)
    negative_elbo_backward(grad_loss, x, mean, logvar, "mean", 1, BOUNDS, (False, *learned))


def _noise(variant: Variant) -> None:
    from vae_fast.kernels.noise import noise

    seed = torch.zeros((), dtype=torch.int64)
    noise(variant.shape, 1, variant.samples, seed, 0, variant.dtype, torch.device("cpu"))


def _scale(variant: Variant) -> None:
    from vae_fast.kernels.scale import scale_

    scale_((_make(variant, "full"), _make(variant, variant.logvar)), torch.empty(()))


CALLS: dict[str, Callable[[Variant], None]] = {
    "sample_kl": _encoder,
    "gaussian_kl": _encoder,
    "gaussian_log_likelihood": _decoder,
    "negative_elbo": _decoder,
    "sample_log_weights": _log_weights,
    "importance_weighted_elbo": _importance_weights,
    "score_function": _score_function,
    "squared_error": _squared_error,
    "noise": _noise,
    "scale": _scale,
}
ENCODER, DECODER = ("sample_kl", "gaussian_kl"), ("gaussian_log_likelihood", "negative_elbo")
GAUSSIAN = (*ENCODER, "sample_log_weights")  # with a prior
SHARED = (*GAUSSIAN, *DECODER, "score_function")  # with a log-variance that may be shared
SAMPLED = ("sample_kl", "sample_log_weights", "score_function")

# What is measured and held to the least loads and stores: whole tiles of aligned tensors.
PLAIN = tuple(Variant(op, dtype=dtype) for op in CALLS for dtype in DTYPES[:2])
# And the other forms that a launcher makes, each of which has to compile.
OTHERS = (
    *(Variant(op, dtype=dtype) for op in CALLS for dtype in DTYPES[2:]),
    *(Variant(op, shape) for op in CALLS for shape in (ODD, SHORT, SHORT_ODD)),
    *(Variant(op, ODD, torch.bfloat16) for op in CALLS),
    *(Variant(op, logvar=kind) for op in SHARED for kind in ("event", "scalar", "row")),
    *(Variant(op, SHORT_ODD, logvar="event") for op in SHARED),
    *(Variant(op, prior=kind) for op in GAUSSIAN for kind in ("full", "event", "scalar")),
    *(Variant(op, samples=3) for op in ("noise", *SAMPLED, *DECODER)),
    *(Variant(op, shape, given=True) for op in SAMPLED for shape in (ALIGNED, ODD)),
    *(
        Variant(op, shape, dtype, prior="full", controlled=True)
        for op in ENCODER
        for shape in (ALIGNED, ODD, SHORT)
        for dtype in (torch.float32, torch.float64)
    ),
    *(
        Variant("sample_log_weights", dtype=dtype, prior="full", samples=3, estimator=estimator)
        for estimator in ("stl", "dreg")
        for dtype in (torch.float32, torch.float64)
    ),
    *(Variant(op, dtype=torch.bfloat16, x=torch.float32) for op in DECODER),
    *(
        Variant(op, shape, dtype, packed=True)
        for op in SHARED
        for shape in (ALIGNED, ODD, SHORT, SHORT_ODD)
        for dtype in DTYPES[:2]
    ),
    # What takes most registers: sums over rows beside a Philox block for each element.
    *(
        Variant(op, ODD, logvar="event", prior="event", samples=3)
        for op in ("sample_kl", "sample_log_weights")
    ),
    Variant("score_function", ODD, logvar="row", samples=3),
)


class Driver:
    """What Triton asks of a driver in order to compile. It stays active: the process has no GPU."""

    def __init__(self, name: str) -> None:
        self.target, self.number = _gpu_target(name), TARGETS.index(name)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return self.number  # kernels are kept by device: each target is one

    def get_current_stream(self, _device: int) -> int:
        return 0


def _gpu_target(name: str) -> Any:
    from triton.backends.compiler import GPUTarget

    if name.startswith("sm_"):
        return GPUTarget("cuda", int(name.removeprefix("sm_")), 32)
    return GPUTarget("hip", name, 64)


@contextmanager
def _compile_only(target: str, found: list[tuple[str, Any, tuple[Any, ...]]]) -> Iterator[None]:
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    run = JITFunction.run

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = run(self, *arguments, grid=grid, warmup=True, **options)
        found.append((self.__name__, kernel, arguments))
        return kernel

    driver.set_active(Driver(target))
    JITFunction.run = compile_only
    try:
        yield
    finally:
        JITFunction.run = run


def _tile_elements(arguments: tuple[Any, ...]) -> int:
    tiling = next((a for a in arguments if hasattr(a, "SHIFT")), None)
    return 0 if tiling is None else tiling.R * tiling.C


def compiled(variant: Variant, target: str) -> list[Compiled]:
    """The kernels that the variant's forward and backward passes launch, for the target."""
    import vae_fast._backends.triton  # noqa: F401  # so that vae_fast.kernels is found
    from vae_fast.kernels import replay

    found: list[tuple[str, Any, tuple[Any, ...]]] = []
    with _compile_only(target, found), replay.disabled():
        CALLS[variant.op](variant)
    return [
        Compiled(
            variant, name, target, kernel.asm, _tile_elements(arguments),
            kernel.metadata.num_warps * kernel.metadata.target.warp_size, kernel.metadata.shared,
        )
        for name, kernel, arguments in found
    ]  # fmt: skip
