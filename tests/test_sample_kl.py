"""What is particular to sample_kl: where its noise comes from, and what it keeps for backward."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from cases import FLOATS
from conftest import Backend
from tolerances import NORMAL_QUANTILE
from torch import Tensor

import vae_fast.functional as F


def inputs(backend: Backend, *shape: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(shape, generator=generator) for _ in range(2)]
    return [t.to(backend.device, dtype).requires_grad_() for t in made]


def draw(backend: Backend, *shape: int, **options) -> Tensor:
    mean, logvar = inputs(backend, *shape)
    return F.sample_kl(mean, logvar, backend=backend.name, **options)[0].detach()


def test_z_is_mean_plus_deviation_times_the_noise_of_the_seed(backend: Backend) -> None:
    """The same noise as F.noise gives: to the rounding of one multiplication and addition."""
    options = {"seed": 5, "row_offset": 9, "num_samples": 2, "backend": backend.name}
    mean, logvar = inputs(backend, 13, 7, dtype=torch.float64)
    z, _ = F.sample_kl(mean, logvar, **options)
    eps = F.noise((13, 7), dtype=torch.float64, device=backend.device, **options)
    torch.testing.assert_close(z, mean + (logvar / 2).exp() * eps, rtol=0, atol=1e-13)


def test_given_noise_is_used_as_it_is(backend: Backend) -> None:
    mean, logvar = inputs(backend, 13, 7)
    eps = torch.full((13, 7), 2.0, device=backend.device)
    z, kl = F.sample_kl(mean, torch.zeros_like(logvar), eps=eps, backend=backend.name)
    torch.testing.assert_close(z, mean + 2, rtol=1e-6, atol=1e-6)
    assert kl.shape == (13,)


def test_the_global_seed_governs(backend: Backend) -> None:
    torch.manual_seed(1)
    first = [draw(backend, 5, 3) for _ in range(3)]
    torch.manual_seed(1)
    again = [draw(backend, 5, 3) for _ in range(3)]
    torch.manual_seed(2)
    other = [draw(backend, 5, 3) for _ in range(3)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_generator_governs_and_leaves_the_global_state_alone(backend: Backend) -> None:
    generator = torch.Generator(backend.device).manual_seed(1)
    state = torch.get_rng_state()
    first = [draw(backend, 5, 3, generator=generator) for _ in range(2)]
    generator.manual_seed(1)
    again = [draw(backend, 5, 3, generator=generator) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(*first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("given", ["seed", "eps"])
def test_nothing_is_drawn_where_seed_or_eps_is_given(given: str, backend: Backend) -> None:
    state = torch.get_rng_state()
    noise = {"seed": 3} if given == "seed" else {"eps": torch.ones(5, 3, device=backend.device)}
    draw(backend, 5, 3, **noise)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_calls_never_share_noise(backend: Backend) -> None:
    mean = torch.zeros(1, 2, device=backend.device)
    calls = backend.repeats(2000)
    drawn = [F.sample_kl(mean, mean, backend=backend.name)[0] for _ in range(calls)]
    assert torch.unique(torch.cat(drawn), dim=0).shape[0] == calls


def test_drawn_seeds_use_all_of_their_bits(backend: Backend) -> None:
    """Drawn noise is that of some seed; over many calls its first value is normal as well."""
    mean = torch.zeros(1, 1, device=backend.device)
    calls = backend.repeats(2000)
    drawn = torch.cat([F.sample_kl(mean, mean, backend=backend.name)[0] for _ in range(calls)])
    score = drawn.mean().item() * math.sqrt(calls)
    spread = (drawn.square().mean().item() - 1) * math.sqrt(calls / 2)
    assert abs(score) < NORMAL_QUANTILE and abs(spread) < NORMAL_QUANTILE


def test_noise_for_backward_is_that_of_forward(
    backend: Backend, way: AbstractContextManager[Any]
) -> None:
    """Whatever the generators do in between, and whatever becomes of a seed's tensor."""
    mean, logvar = inputs(backend, 6, 5)
    seed = torch.tensor(11, device=backend.device)
    for noise in ({}, {"seed": seed}):
        with way:
            z, _ = F.sample_kl(mean, logvar, backend=backend.name, **noise)
        eps = (z - mean) / (logvar / 2).exp()
        torch.manual_seed(99)
        seed.add_(1)
        (gradient,) = torch.autograd.grad(z.sum(), logvar, retain_graph=True)
        want = 0.5 * (logvar / 2).exp() * eps
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_recomputes_with_the_same_noise(backend: Backend) -> None:
    mean, logvar = inputs(backend, 6, 5)

    def loss(mean: Tensor, logvar: Tensor) -> Tensor:
        z, kl = F.sample_kl(mean, logvar, backend=backend.name)
        return (z.cos() * z).sum() + kl.square().sum()

    gradients = []
    for wrapped in (
        loss,
        lambda *a: torch.utils.checkpoint.checkpoint(loss, *a, use_reentrant=False),
    ):
        torch.manual_seed(4)
        gradients.append(torch.autograd.grad(wrapped(mean, logvar), (mean, logvar)))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_rows_do_not_depend_on_the_batch_they_are_in(backend: Backend) -> None:
    mean, logvar = inputs(backend, 24, 7)
    z, kl = F.sample_kl(mean, logvar, seed=3, num_samples=2, backend=backend.name)
    for start, stop in ((0, 24), (0, 1), (5, 12), (23, 24)):
        part_z, part_kl = F.sample_kl(
            mean[start:stop], logvar[start:stop], seed=3, num_samples=2, row_offset=start,
            backend=backend.name,
        )  # fmt: skip
        assert torch.equal(part_z, z[:, start:stop])
        assert torch.equal(part_kl, kl[start:stop])


def test_samples_have_the_mean_and_the_variance_that_were_asked_for(backend: Backend) -> None:
    mean = torch.tensor([[-2.0, 0.0, 3.0]], device=backend.device)
    logvar = torch.tensor([[-3.0, 0.0, 1.5]], device=backend.device)
    count = backend.repeats(20_000)
    z, _ = F.sample_kl(mean, logvar, num_samples=count, seed=0, backend=backend.name)
    scaled = ((z[:, 0] - mean[0]) / (logvar[0] / 2).exp()).double()
    assert (scaled.mean(0).abs() * math.sqrt(count) < NORMAL_QUANTILE).all()
    assert ((scaled.square().mean(0) - 1).abs() * math.sqrt(count / 2) < NORMAL_QUANTILE).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_only_the_inputs_are_kept_for_backward(
    dtype: torch.dtype, compiled_backend: Backend
) -> None:
    """Neither the noise nor the deviation: three samples' would be three times as large."""
    mean, logvar = inputs(compiled_backend, 64, 50, dtype=dtype)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.sample_kl(mean, logvar, num_samples=3, backend=compiled_backend.name)
    assert sum(kept.values()) <= 2 * mean.numel() * mean.element_size() + 64


def test_inputs_changed_in_place_are_noticed(compiled_backend: Backend) -> None:
    mean, logvar = (t.detach().clone().requires_grad_() for t in inputs(compiled_backend, 4, 3))
    z, _ = F.sample_kl(mean, logvar, backend=compiled_backend.name)
    with torch.no_grad():
        logvar.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def controlled(backend: Backend, *leaves: Tensor, **options) -> tuple[Tensor, ...]:
    return F.sample_kl(*leaves, seed=3, backend=backend.name, **options)


@pytest.mark.parametrize("event_dims", [0, 1, 2, 3])
def test_the_sums_over_the_batch_add_up_to_those_over_the_event(
    event_dims: int, backend: Backend
) -> None:
    leaves = inputs(backend, 6, 5, 4, dtype=torch.float64)
    for options in ({}, {"free_bits": 0.3}):
        _, kl, dims = controlled(
            backend, *leaves, event_dims=event_dims, return_dims=True, **options
        )
        assert dims.shape == (6, 5, 4)[3 - event_dims :] and kl.shape == (6, 5, 4)[: 3 - event_dims]
        torch.testing.assert_close(dims.sum(), kl.sum(), rtol=1e-13, atol=0)
        each = F.gaussian_kl(*leaves, event_dims=0, backend=backend.name, **options)
        want = each.reshape(-1, *dims.shape).sum(0)
        torch.testing.assert_close(dims, want, rtol=1e-13, atol=0)


def test_the_options_of_the_divergence_leave_the_sample_alone(backend: Backend) -> None:
    mean, logvar = inputs(backend, 6, 5)
    prior = {"prior_mean": mean.detach() + 1, "prior_logvar": logvar.detach() - 1}
    upstream = torch.randn(2, 6, 5, device=backend.device)
    results = []
    for options in ({}, {"free_bits": 0.7}, {"balance": 0.8}, {"return_dims": True}):
        z, *_ = controlled(backend, mean, logvar, num_samples=2, **prior, **options)
        results.append([z.detach(), *torch.autograd.grad(z, (mean, logvar), upstream)])
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_element_at_the_floor_keeps_its_gradient(dtype: torch.dtype, backend: Backend) -> None:
    """KL of N(m, 1): ½ m², here ½ of 0, 1, 2 and -1, with a floor of ½."""
    mean = torch.tensor([[0.0, 1.0, 2.0, -1.0]], device=backend.device, dtype=dtype)
    mean, logvar = mean.requires_grad_(), torch.zeros_like(mean).requires_grad_()
    _, kl, dims = controlled(backend, mean, logvar, free_bits=0.5, return_dims=True)
    assert kl.tolist() == [3.5] and dims.tolist() == [0.5, 0.5, 2.0, 0.5]
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0], device=backend.device, dtype=dims.dtype)
    (gradient,) = torch.autograd.grad([kl, dims], mean, [torch.ones_like(kl), weights])
    assert gradient.tolist() == [[0.0, 3.0, 10.0, -9.0]]


def test_free_bits_of_zero_change_nothing_but_roundings_below_it(backend: Backend) -> None:
    leaves = inputs(backend, 6, 5)
    plain, floored = (
        F.gaussian_kl(*leaves, free_bits=f, backend=backend.name) for f in (None, 0.0)
    )
    torch.testing.assert_close(floored, plain, rtol=1e-6, atol=0)


def test_a_nan_passes_the_floor(backend: Backend) -> None:
    mean = torch.tensor([[math.nan, 0.0], [0.0, 0.0]], device=backend.device)
    kl = F.gaussian_kl(mean, torch.zeros_like(mean), free_bits=0.25, backend=backend.name)
    assert kl[0].isnan() and kl[1].item() == 0.5


def test_balance_shares_the_gradient_out(backend: Backend) -> None:
    """The value stays; posterior and prior get the shares 1 - α and α."""
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(6, 5, generator=generator).double().to(backend.device) for _ in range(4)]
    leaves = [t.requires_grad_() for t in made]
    plain = F.gaussian_kl(*leaves, backend=backend.name)
    whole = torch.autograd.grad(plain.sum(), leaves)
    for balance in (0.0, 0.25, 1.0):
        kl = F.gaussian_kl(*leaves, balance=balance, backend=backend.name)
        assert torch.equal(kl, plain)
        for place, got in enumerate(torch.autograd.grad(kl.sum(), leaves)):
            share = 1 - balance if place < 2 else balance
            torch.testing.assert_close(got, share * whole[place], rtol=1e-14, atol=0)
