"""The ops on fake tensors of a GPU: shapes and dtypes, traced without one."""

from __future__ import annotations

import pytest
import torch
from conftest import GPUS, Backend, require
from torch import Tensor

import vae_fast.functional as F


@pytest.fixture(autouse=True)
def triton_is_there() -> None:
    require(Backend("triton", GPUS[0] if GPUS else "cpu"))


FAKE_ARGUMENTS = ("mean", "logvar", "x", "x_mean", "x_logvar", "grad_z", "grad_kl")


def fake_forward(mean: Tensor, logvar: Tensor, x: Tensor, x_mean: Tensor, x_logvar: Tensor,
                 *_upstream: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    z, kl = F.sample_kl(mean, logvar, num_samples=2)
    log_weights = F.sample_log_weights(mean, logvar, num_samples=2)
    return (
        z,
        kl,
        F.sample_kl(mean, logvar, return_dims=True)[2],
        *log_weights,
        *F.importance_weighted_elbo(log_weights[1]),
        F.squared_error(x, x_mean),
        F.score_function(kl, mean, logvar, seed=1),
        F.gaussian_kl(mean, logvar),
        F.gaussian_log_likelihood(x, x_mean, x_logvar),
        F.negative_elbo(x, x_mean, x_logvar, kl),
        F.noise((3, 4), seed=1, device=mean.device),
    )


def fake_backward(mean: Tensor, logvar: Tensor, x: Tensor, x_mean: Tensor, x_logvar: Tensor,
                  grad_z: Tensor, grad_kl: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    ops = torch.ops.vae_fast
    given, bounds, control = (mean, logvar, None, None), (-30.0, 20.0), (0.3, 0.2, 0.8)
    noise = (None, ops.draw_seed(mean), 2, 1, 0)
    decoder, needs = (x, x_mean, x_logvar), [True, True, False, False]
    ratio = grad_z.float().sum(-1)
    return (
        *ops.sample_kl_backward(
            grad_z, grad_kl, None, *given, *noise, bounds, control, needs, "triton"
        ),
        *ops.gaussian_kl_backward(grad_kl, *given, 1, bounds, control, needs, "triton"),
        *ops.sample_log_weights_backward(
            grad_z, ratio, ratio, *given, *noise, 0, bounds, True, needs, "triton"
        ),
        *ops.score_function_backward(
            ratio, ratio, mean, logvar, *noise, bounds, [True, True], "triton"
        ),
        *ops.gaussian_log_likelihood_backward(grad_kl, *decoder, 1, bounds, [True] * 3, "triton"),
        *ops.negative_elbo_backward(grad_kl, *decoder, "none", 1, bounds, [True] * 3, "triton"),
    )


def of(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[tuple[int, ...], torch.dtype]:
    return shape, dtype


HALF, SINGLE = torch.bfloat16, torch.float32
LATENT, DATA, ROWS = of((3, 4), HALF), of((3, 9), HALF), of((3,), SINGLE)
FAKE = {
    fake_forward: [
        of((2, 3, 4), HALF),
        ROWS,
        of((4,), SINGLE),
        of((2, 3, 4), HALF),
        of((2, 3), SINGLE),
        ROWS,
        of((2, 3), SINGLE),
        ROWS,
        ROWS,
        ROWS,
        ROWS,
        of((), SINGLE),
        of((3, 4), SINGLE),
    ],
    fake_backward: [LATENT] * 8 + [of((3, 9), SINGLE), DATA, DATA] * 2,
}


@pytest.mark.parametrize("function", FAKE, ids=lambda function: function.__name__)
@pytest.mark.parametrize("compiler", [None, "eager", "aot_eager"])
def test_ops_on_fake_cuda_tensors_trace_as_whole_graphs(compiler: str | None, function) -> None:
    """A torch built without CUDA has no autograd for its device, so each pass is traced alone."""
    torch._dynamo.reset()
    traced = function
    if compiler is not None:
        traced = torch.compile(function, fullgraph=True, backend=compiler)
    shapes = {"x": of((3, 9), SINGLE), "x_mean": DATA, "x_logvar": DATA,
              "grad_z": of((2, 3, 4), HALF), "grad_kl": ROWS}  # fmt: skip
    with torch._subclasses.FakeTensorMode(), torch.no_grad():
        arguments = [
            torch.empty(shape, dtype=dtype, device="cuda:0")
            for shape, dtype in (shapes.get(name, LATENT) for name in FAKE_ARGUMENTS)
        ]
        made = traced(*arguments)
    assert [of(tuple(t.shape), t.dtype) for t in made] == FAKE[function]
    assert all(t.device == torch.device("cuda:0") for t in made)
