"""What the other tests rest on: memory that is NaN until written, layouts, the oracle itself."""

from __future__ import annotations

import dataclasses
import threading

import check
import oracle
import pytest
import torch
from cases import FLOATS, LAYOUTS, Case, lay_out, tensors
from check import assert_close
from torch.distributions import Normal, kl_divergence


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_new_memory_is_nan(dtype: torch.dtype) -> None:
    like = torch.ones(3, 4, dtype=dtype)

    def allocate() -> list[torch.Tensor]:
        return [
            torch.empty(1000, dtype=dtype),
            torch.empty(2, 3, 4, 5, dtype=dtype, memory_format=torch.channels_last),
            torch.empty_like(like),
            torch.empty_strided((2, 3), (1, 2), dtype=dtype),
            like.new_empty(7),
            like.new_empty((5,), dtype=torch.float32),
            like.new_empty_strided((2, 2), (2, 1)),
        ]

    made = allocate()
    thread = threading.Thread(target=lambda: made.extend(allocate()))
    thread.start()
    thread.join()
    assert len(made) == 14
    assert all(bool(tensor.isnan().all()) for tensor in made)


def test_an_element_that_nobody_wrote_fails_the_parity_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = check.F.gaussian_kl

    def forgetful(*arguments: torch.Tensor, **options: object) -> torch.Tensor:
        kl = right(*arguments, **options)
        out = torch.empty_like(kl)
        out[:-1] = kl[:-1]
        return out

    case = Case("gaussian_kl", (5, 3), differentiate=())
    check.check(case, "reference")
    monkeypatch.setattr(check.F, "gaussian_kl", forgetful)
    with pytest.raises(AssertionError, match=r"kl: 1 of 5 elements are off; the worst, at \(4,\)"):
        check.check(case, "reference")


@pytest.mark.parametrize(
    ("argument", "error"), [("mean", 1e-5), ("logvar", 1e-5), ("prior_mean", 1e-5)]
)
def test_a_wrong_gradient_fails_the_parity_check(
    argument: str, error: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = check.differentiate

    def wrong(*arguments: object) -> dict[str, torch.Tensor]:
        gradients = right(*arguments)
        if gradients[argument].dtype is torch.float32:
            gradients[argument].view(-1)[1] *= 1 + error
        return gradients

    monkeypatch.setattr(check, "differentiate", wrong)
    case = Case("gaussian_kl", (5, 3), prior_mean="full", prior_logvar="full")
    with pytest.raises(AssertionError, match=f"grad {argument}: 1 of 15"):
        check.check(case, "reference")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_what_they_are_called(layout: str) -> None:
    values = torch.randn(4, 3, 5, 6)
    laid = lay_out(values, layout)
    expected = values[:1].expand(values.shape) if layout == "expanded" else values
    assert torch.equal(laid, expected)
    facts = {
        "contiguous": laid.is_contiguous(),
        "transposed": laid.stride(0) == 1,
        "sliced": laid.stride(-1) == 2,
        "offset": laid.storage_offset() == 1,
        "expanded": laid.stride(0) == 0,
        "channels_last": laid.stride(1) == 1,
        "negated": laid.is_neg(),
    }
    assert facts[layout]


def test_the_oracle_agrees_with_integrals() -> None:
    """E_q[ln q - ln p] by quadrature, so that not even torch.distributions is taken on trust."""
    mean, logvar, prior_mean, prior_logvar = 0.3, -1.2, -0.4, 0.7
    points = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    scales = [torch.tensor(v, dtype=torch.float64).mul(0.5).exp() for v in (logvar, prior_logvar)]
    q, p = Normal(mean, scales[0]), Normal(prior_mean, scales[1])
    log_q, log_p = q.log_prob(points), p.log_prob(points)
    integral = torch.trapezoid(log_q.exp() * (log_q - log_p), points)
    torch.testing.assert_close(kl_divergence(q, p), integral, rtol=1e-10, atol=0)
    assert torch.trapezoid(log_q.exp(), points).item() == pytest.approx(1, abs=1e-12)


def test_the_oracle_of_an_estimator_is_the_textbook_expression() -> None:
    """log p(z) - log q(z) with q's parameters held, at values where z - m loses few digits."""
    mean, logvar, prior_mean, prior_logvar, eps = (
        torch.randn(3, 4, dtype=torch.float64).requires_grad_(index < 4) for index in range(5)
    )
    leaves = (mean, logvar, prior_mean, prior_logvar)
    z = mean + (0.5 * logvar).exp() * eps
    held = Normal(mean.detach(), (0.5 * logvar).exp().detach())
    prior = Normal(prior_mean, (0.5 * prior_logvar).exp())
    ratio = (prior.log_prob(z) - held.log_prob(z)).sum(1)
    bounds = (-30.0, 20.0)
    got_z, got = oracle.sample_log_weights(*leaves, eps.detach(), 1, bounds, "stl")
    torch.testing.assert_close((got_z, got), (z, ratio), rtol=1e-12, atol=1e-12)
    for a, b in zip(*(torch.autograd.grad(r.sum(), leaves) for r in (got, ratio)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    log_q = Normal(mean, (0.5 * logvar).exp()).log_prob(z.detach()).sum(1)
    signal = torch.randn(3, dtype=torch.float64)
    value = oracle.score_function(signal, mean, logvar, None, eps.detach(), 1, bounds)
    assert torch.equal(value.detach(), signal)
    surrogates = ((value, mean, logvar), (signal * log_q, mean, logvar))
    made = (torch.autograd.grad(s.sum(), inputs) for s, *inputs in surrogates)
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_floor_that_rounding_decides_about_is_refused() -> None:
    case = Case("gaussian_kl", (5, 3))
    inputs = {name: None if t is None else t.detach() for name, t in tensors(case).items()}
    element = oracle.kl_elements(**inputs, bounds=case.bounds)[2, 1].item()
    for floor, near in ((element * (1 + 1e-8), True), (element * 1.01, False)):
        at_floor = dataclasses.replace(case, free_bits=floor)
        if near:
            with pytest.raises(AssertionError, match="rounding decides"):
                check.check(at_floor, "reference")
        else:
            check.check(at_floor, "reference")


# What a mistake in an op would do to a case's gradients: each must be found.
MISTAKES = {
    "a floor that lets gradients pass": (
        Case("gaussian_kl", (5, 3), free_bits=0.6), {"free_bits": None}, "kl|grad"
    ),
    "a balance the wrong way round": (
        Case("gaussian_kl", (5, 3), balance=0.8, prior_mean="full"), {"balance": 0.2}, "grad"
    ),
    "another estimator": (
        Case("sample_log_weights", (5, 3), num_samples=3, estimator="stl"),
        {"estimator": "dreg"}, "grad",
    ),
    "no estimator": (
        Case("sample_log_weights", (5, 3), estimator="stl"),
        {"estimator": "reparameterization"}, "grad logvar",
    ),
    "other samples": (
        Case("sample_log_weights", (5, 3), sample_offset=2), {"sample_offset": 1}, "z"
    ),
    "no baseline": (
        Case("score_function", (5, 3), baseline="rows"), {"baseline": None}, "grad"
    ),
    "the noise of other rows": (Case("score_function", (5, 3)), {"row_offset": 1}, "grad"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_an_objective_fails_the_parity_check(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, wrong, message = MISTAKES[mistake]
    check.check(case, "reference")
    right = getattr(check.F, case.op)
    monkeypatch.setattr(check.F, case.op, lambda **given: right(**(given | wrong)))
    with pytest.raises(AssertionError, match=f"^({message})"):
        check.check(case, "reference")


def test_assert_close_holds_nan_and_infinity_to_their_places() -> None:
    want = torch.tensor([1.0, float("nan"), float("inf")], dtype=torch.float64)
    allowed = torch.full((3,), 1e-3, dtype=torch.float64)
    assert_close("same", want.float(), want, allowed)
    for place, value in ((0, float("nan")), (1, 0.0), (2, float("-inf")), (0, 1.01)):
        got = want.float()
        got[place] = value
        with pytest.raises(AssertionError, match="1 of 3"):
            assert_close("changed", got, want, allowed)
