"""Runs a case on a backend and on the oracle, and compares values and gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import magnitudes
import oracle
import torch
from cases import OUTPUTS, Case, given_noise, tensors, upstream
from magnitudes import Terms
from tolerances import arithmetic, bound
from torch import Tensor

import vae_fast.functional as F

Named = dict[str, Tensor]


class Result(NamedTuple):
    outputs: Named
    gradients: Named  # of the differentiated arguments


def bounds(case: Case) -> dict[str, float]:
    return {"logvar_min": case.bounds[0], "logvar_max": case.bounds[1]}


def call(
    case: Case,
    arguments: dict[str, Tensor | None],
    backend: str | None,
    eps: Tensor | None = None,  # the case's own where it has one
) -> Named:
    """The op's outputs by name, through its public function."""
    options = bounds(case) | {"event_dims": case.event_dims, "backend": backend}
    if case.is_decoder and case.num_samples is not None:
        options["event_dims"] = case.resolved_event_dims
    if case.op == "sample_kl":
        if case.noise == "eps":
            device = arguments["mean"].device.type
            options["eps"] = given_noise(case, device) if eps is None else eps
        else:
            options |= {"seed": case.seed, "row_offset": case.row_offset}
        options["num_samples"] = case.num_samples
    if case.op == "negative_elbo":
        options |= {"beta": case.beta, "reduction": case.reduction}
    returned = getattr(F, case.op)(**arguments, **options)
    returned = returned if isinstance(returned, tuple) else (returned,)
    return dict(zip(OUTPUTS[case.op], returned, strict=True))


def differentiate(outputs: Named, arguments: dict[str, Tensor | None], gradients: Named) -> Named:
    """Gradients of the arguments that require one; zeros where the outputs do not depend on it."""
    wanted = {k: v for k, v in arguments.items() if v is not None and v.requires_grad}
    if not wanted:
        return {}
    # Not every output depends on every argument: z has nothing to do with the prior.
    reached = [name for name in gradients if outputs[name].requires_grad]
    if not reached:
        return {name: torch.zeros_like(tensor) for name, tensor in wanted.items()}
    made = torch.autograd.grad(
        [outputs[name] for name in reached],
        list(wanted.values()),
        [gradients[name] for name in reached],
        allow_unused=True,
        materialize_grads=True,
    )
    return dict(zip(wanted, made, strict=True))


def run(case: Case, backend: str | None, device: str = "cpu") -> tuple[Result, Named]:
    """Outputs and gradients of a backend, and the upstream gradients that were used."""
    arguments = tensors(case, device)
    outputs = call(case, arguments, backend)
    gradients = upstream(case, outputs)
    return Result(outputs, differentiate(outputs, arguments, gradients)), gradients


def noise(case: Case) -> Tensor:
    """The noise of a case in float64."""
    if case.noise == "eps":
        return given_noise(case).double()
    dims = case.resolved_event_dims
    return oracle.noise(case.shape, case.seed, dims, case.row_offset, case.num_samples)


def answer(case: Case, arguments: dict[str, Tensor | None]) -> Named:
    """The op's outputs in float64 for float64 arguments."""
    dims = case.resolved_event_dims
    if case.op == "gaussian_log_likelihood":
        return {
            "log_likelihood": oracle.gaussian_log_likelihood(
                **arguments, event_dims=dims, bounds=case.bounds
            )
        }
    if case.op == "negative_elbo":
        loss = oracle.negative_elbo(
            **arguments,
            beta=case.beta,
            reduction=case.reduction,
            event_dims=dims,
            bounds=case.bounds,
        )
        return {"loss": loss}
    outputs = {"kl": oracle.gaussian_kl(**arguments, event_dims=dims, bounds=case.bounds)}
    if case.op == "sample_kl":
        mean, logvar = arguments["mean"], arguments["logvar"]
        outputs["z"] = oracle.sample(mean, logvar, noise(case), case.bounds)
    return outputs


def oracle_run(case: Case, gradients: Named) -> tuple[Result, dict[str, Tensor | None]]:
    """Outputs and gradients in float64, and the float64 arguments they are of."""
    arguments = {
        name: None if t is None else t.detach().double().requires_grad_(t.requires_grad)
        for name, t in tensors(case).items()
    }
    outputs = answer(case, arguments)
    gradients = {name: g.cpu().double() for name, g in gradients.items()}
    return Result(outputs, differentiate(outputs, arguments, gradients)), arguments


def row_gradient(case: Case, gradient: Tensor) -> Tensor:
    """The gradient of each row's loss, from that of the loss."""
    count = math.prod(case.batch_shape)
    share = 1 / count if case.reduction == "mean" and count else 1.0
    return (gradient * share).expand(case.batch_shape)


def terms(case: Case, arguments: dict[str, Tensor | None], gradients: Named) -> dict[str, Terms]:
    """What each output and gradient is summed from."""
    inputs = {name: None if t is None else t.detach() for name, t in arguments.items()}
    shape, dims = case.mean_shape, case.resolved_event_dims
    given = {name: g.cpu().double() for name, g in gradients.items()}

    def by_element(name: str, rows: tuple[int, ...]) -> Tensor:
        gradient = given.get(name, torch.zeros(rows, dtype=torch.float64))
        return gradient.reshape(gradient.shape + (1,) * dims).expand(shape)

    if case.op == "negative_elbo":
        rows = row_gradient(case, given["loss"])
        samples = case.num_samples or 1
        return magnitudes.negative_elbo(
            **inputs,
            beta=case.beta,
            bounds=case.bounds,
            samples=samples,
            event_dims=dims,
            grad=rows,
        )
    if case.op == "gaussian_log_likelihood":
        gradient = by_element("log_likelihood", case.with_samples(case.batch_shape))
        return magnitudes.gaussian_log_likelihood(**inputs, bounds=case.bounds, grad=gradient)
    grad_kl = by_element("kl", case.batch_shape)
    if case.op == "gaussian_kl":
        return magnitudes.gaussian_kl(**inputs, bounds=case.bounds, grad_kl=grad_kl)
    eps = noise(case)
    return magnitudes.sample_kl(
        **inputs,
        eps=eps,
        bounds=case.bounds,
        grad_z=given.get("z", torch.zeros_like(eps)),
        grad_kl=grad_kl,
        drawn=case.noise == "seed",
    )


def output_terms(case: Case, name: str, parts: Terms, want: Tensor) -> tuple[Tensor, Terms]:
    """An output's answer and its terms, shaped so that the one broadcasts to the other."""
    if name == "z":
        return want, parts
    if name != "loss":
        return want.reshape(want.shape + (1,) * case.resolved_event_dims), parts
    if case.reduction == "none":
        return want[..., None], parts
    count = max(1, math.prod(case.batch_shape)) if case.reduction == "mean" else 1
    return want, Terms(parts.magnitude / count)


def assert_close(name: str, got: Tensor, want: Tensor, allowed: Tensor) -> None:
    """Each element within what is allowed; NaN and infinity exactly where the answer has them."""
    limit = torch.finfo(got.dtype).max
    got = got.detach().cpu().double()
    assert got.shape == want.shape, f"{name}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
    error = (got - want).abs()
    wrong = ~(error <= allowed)  # true for NaN
    wrong &= ~((got == want) | (got.isnan() & want.isnan()))
    # What its dtype cannot hold, once rounded, is infinite.
    wrong &= ~(got.isinf() & (got.sign() == want.sign()) & (want.abs() + allowed > limit))
    if not wrong.any():
        return
    worst = torch.where(wrong, (error / allowed).nan_to_num(math.inf), -1.0).argmax()
    place = tuple(int(i) for i in torch.unravel_index(worst, want.shape))
    raise AssertionError(
        f"{name}: {int(wrong.sum())} of {wrong.numel()} elements are off; the worst, at {place}, "
        f"is {got[place].item()!r} where {want[place].item()!r} within "
        f"{allowed[place].item():.3g} is right"
    )


def check(case: Case, backend: str | None, device: str = "cpu") -> Result:
    """Runs the case and holds every output and gradient to the oracle within the error model."""
    result, gradients = run(case, backend, device)
    want, arguments = oracle_run(case, gradients)
    parts = terms(case, arguments, gradients)
    dtypes = {case.argument_dtype(name) for name, t in arguments.items() if t is not None}
    compute = torch.float64 if dtypes == {torch.float64} else torch.float32
    plain = backend == "reference"
    for name, tensor in result.outputs.items():
        expected = case.dtype if name == "z" else arithmetic(case.dtype)
        assert tensor.dtype is expected, f"{name} is {tensor.dtype}, not {expected}"
        goal = want.outputs[name].detach()
        shaped, of = output_terms(case, name, parts[name], goal)
        allowed = bound(case.op, shaped, of, tensor.dtype, compute, by_autograd=plain)
        assert_close(name, tensor, goal, allowed.reshape(goal.shape))
    for name, tensor in result.gradients.items():
        dtype, goal = case.argument_dtype(name), want.gradients[name]
        assert tensor.dtype is dtype, f"grad {name} is {tensor.dtype}, not {dtype}"
        allowed = bound(case.op, goal, parts[name], dtype, compute, by_autograd=plain)
        assert_close(f"grad {name}", tensor, goal, allowed)
    return result
