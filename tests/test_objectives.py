"""Objectives: bounds and gradients against closed forms, and what is refused."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import Backend, require
from tolerances import NORMAL_QUANTILE
from toy import EVIDENCE, linear_vae, row_gradients, small, standard_error, toy, variance_and_error

import vae_fast.functional as F
from vae_fast import GaussianPrior
from vae_fast.objectives import ELBO, IWAE, FreeBits


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Those that statistics do not take minutes on."""
    require(Backend(request.param, "cpu"))
    return request.param


def test_the_evidence() -> None:
    assert pytest.approx(-1.5155121, abs=5e-8) == EVIDENCE


@pytest.mark.parametrize(
    ("objective", "bound"),
    [
        (ELBO(), -1.9189385),
        (ELBO(estimator="stl"), -1.9189385),
        (ELBO(4, "score_function"), -1.9189385),
        (IWAE(1), -1.9189385),
        (IWAE(2), -1.6531),
        (IWAE(5), -1.5576),
        (IWAE(10, "dreg"), -1.5349),
        (IWAE(50, "stl"), -1.5190),
    ],
    ids=str,
)
def test_bounds_of_the_prior_as_posterior(
    objective: ELBO | IWAE, bound: float, backend: str
) -> None:
    """q = N(0, 1), and x = 1."""
    rows = 200_000 // objective.num_samples
    out = toy(rows, 0.0, 0.0, backend, objective=objective)(torch.ones(rows, 1), seed=5)
    # The table has four decimals.
    assert abs(out.elbo.mean().item() - bound) < 4 * standard_error(out.elbo) + 5e-5
    assert out.loss.item() == pytest.approx(-out.elbo.mean().item(), abs=1e-5)


@pytest.mark.parametrize(
    "objective", [ELBO(estimator="stl"), IWAE(1), IWAE(7), IWAE(7, "dreg")], ids=str
)
def test_the_exact_posterior_has_no_variance(objective: ELBO | IWAE, backend: str) -> None:
    """With q = p(z|x) = N(x/2, 1/2) every weight is p(x)."""
    model = toy(1000, 0.5, -math.log(2), backend, objective=objective)
    out = model(torch.ones(1000, 1), seed=3)
    assert (out.elbo - EVIDENCE).abs().max() < 2e-6
    if objective.estimator != "reparameterization":  # nor has the gradient
        assert max(g.abs().max().item() for g in row_gradients(model, 1.0, 3)) < 2e-6


# Of d/dμ E[z²] for z ~ N(1, 1), which is 2.
@pytest.mark.parametrize(
    ("baseline", "variance"), [(0.0, 30.0), (2.0, 18.0), (4.0, 14.0), (None, 4.0)]
)
def test_variances_of_the_estimators(baseline: float | None, variance: float, backend: str) -> None:
    rows = 1_000_000
    mean = torch.ones(rows, 1, requires_grad=True)
    logvar = torch.zeros(rows, 1)
    z, _ = F.sample_kl(mean, logvar, seed=11, backend=backend)
    if baseline is None:
        signal = z[:, 0] ** 2
    else:
        signal = F.score_function(
            z.detach()[:, 0] ** 2, mean, logvar, baseline=torch.tensor(baseline), seed=11,
            backend=backend,
        )  # fmt: skip
    (estimates,) = torch.autograd.grad(signal.sum(), mean)
    found, error = variance_and_error(estimates)
    assert NORMAL_QUANTILE * error < 0.05 * variance
    assert abs(found - variance) < NORMAL_QUANTILE * error
    assert abs(estimates.mean().item() - 2) < NORMAL_QUANTILE * standard_error(estimates)


ESTIMATORS = [
    ELBO(),
    ELBO(3),
    ELBO(estimator="stl"),
    ELBO(2, "score_function"),
    ELBO(estimator="score_function"),
    ELBO(2, "score_function", baseline="batch_mean"),
    ELBO(2, "score_function", baseline="running_mean"),
    ELBO(estimator="score_function", baseline=None),
    ELBO(beta=3.0, estimator="stl"),
    ELBO(2, beta=0.5, estimator="score_function"),
]


@pytest.mark.parametrize("objective", ESTIMATORS, ids=str)
def test_gradients_of_the_elbo_are_unbiased(objective: ELBO, backend: str) -> None:
    """Without a seed given: the ops of one pass must share what they draw."""
    mean, logvar, x = 0.3, -0.4, 1.0
    model = toy(100_000, mean, logvar, backend, objective=objective)
    if objective.baseline == "running_mean":  # what it is in use: neither 0 nor of this batch
        model.objective_state.running_mean.update(torch.tensor(-1.5))
    beta, variance = model.beta, math.exp(logvar)
    wanted = ((mean - x) + beta * mean, 0.5 * variance + 0.5 * beta * (variance - 1))
    for estimates, want in zip(row_gradients(model, x), wanted, strict=True):
        assert abs(estimates.mean().item() - want) < NORMAL_QUANTILE * standard_error(estimates)


def bound_gradient(mean: float, logvar: float, x: float, count: int, path_only: bool):
    """-∇ of the bound for K = ``count``, by quadrature over the noise, in float64.

    With ``path_only`` the parameters in ln q(z|x) are held.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grids = torch.meshgrid(*[torch.from_numpy(nodes)] * count, indexing="ij")
    eps = torch.stack([grid.flatten() for grid in grids])
    grids = torch.meshgrid(*[torch.from_numpy(weights / weights.sum())] * count, indexing="ij")
    measure = torch.stack([grid.flatten() for grid in grids]).prod(0)
    q = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (mean, logvar)]
    z = q[0] + torch.exp(q[1] / 2) * eps
    m, v = (p.detach() for p in q) if path_only else q
    normal = torch.distributions.Normal
    log_weights = (
        normal(z, 1.0).log_prob(torch.tensor(x, dtype=torch.float64))
        + normal(0.0, 1.0).log_prob(z)
        - normal(m, torch.exp(v / 2)).log_prob(z)
    )
    bound = torch.logsumexp(log_weights, 0) - math.log(count)
    return [-g.item() for g in torch.autograd.grad((bound * measure).sum(), q)]


@pytest.mark.parametrize("estimator", ["reparameterization", "dreg", "stl"])
@pytest.mark.parametrize("count", [1, 2])
def test_gradients_of_the_importance_weighted_bound(
    count: int, estimator: str, backend: str
) -> None:
    """Unbiased, except that "stl" for more samples than one estimates what it says."""
    mean, logvar, x = 0.2, 0.5, 1.0
    wanted = bound_gradient(mean, logvar, x, count, path_only=estimator == "stl")
    if count == 1 and estimator == "stl":
        assert wanted == pytest.approx(bound_gradient(mean, logvar, x, 1, path_only=False))
    model = toy(200_000, mean, logvar, backend, objective=IWAE(count, estimator))
    for estimates, want in zip(row_gradients(model, x, 3), wanted, strict=True):
        assert abs(estimates.mean().item() - want) < NORMAL_QUANTILE * standard_error(estimates)


@pytest.mark.parametrize("estimator", ["reparameterization", "score_function"])
def test_variance_falls_as_one_over_the_samples(estimator: str, backend: str) -> None:
    scaled = []
    for count in (1, 4, 16):
        objective = ELBO(
            count, estimator, baseline=None if estimator == "score_function" else "auto"
        )
        model = toy(50_000, 0.3, -0.4, backend, objective=objective)
        variance, error = variance_and_error(row_gradients(model, 1.0, 7)[0])
        scaled.append((count * variance, count * error))
    for value, error in scaled[1:]:
        allowed = NORMAL_QUANTILE * math.hypot(error, scaled[0][1])
        assert allowed < 0.15 * value
        assert abs(value - scaled[0][0]) < allowed


def test_leaving_one_out_lowers_the_variance(backend: str) -> None:
    found = {}
    for baseline in (None, "leave_one_out", "batch_mean"):
        objective = ELBO(4, "score_function", baseline=baseline)
        model = toy(20_000, 0.3, -0.4, backend, objective=objective)
        found[baseline], _ = variance_and_error(row_gradients(model, 1.0, 7)[0])
    assert found["leave_one_out"] < 0.7 * found[None]
    assert found["batch_mean"] < 0.7 * found[None]


def test_signal_to_noise_of_the_encoder_falls_with_k_and_with_dreg_does_not(backend: str) -> None:
    """As K^(-1/2) and as K^(1/2) (Rainforth et al. 2018, Tucker et al. 2019)."""
    counts = (16, 64, 256)
    ratios = {"reparameterization": [], "dreg": []}
    for count in counts:
        rows = 1_500_000 // count
        of = {
            estimator: row_gradients(
                toy(rows, 0.2, 0.2, backend, objective=IWAE(count, estimator)), 1.0, 5
            )[0]
            for estimator in ratios
        }
        # The same expectation, which dreg's estimates find with hardly any noise.
        expectation = of["dreg"].mean().abs().item()
        assert standard_error(of["dreg"]) < 0.02 * expectation
        for estimator, estimates in of.items():
            ratios[estimator].append(math.log(expectation / estimates.std().item()))
    span = math.log(counts[-1] / counts[0])
    slopes = {name: (values[-1] - values[0]) / span for name, values in ratios.items()}
    assert slopes["reparameterization"] == pytest.approx(-0.5, abs=0.1)
    assert slopes["dreg"] == pytest.approx(0.5, abs=0.1)


def test_a_running_mean_is_used_before_it_is_updated(backend: str) -> None:
    objective = ELBO(2, "score_function", baseline="running_mean")
    model = toy(50, 0.3, -0.4, backend, objective=objective)
    mean = model.objective_state.running_mean
    x = torch.ones(50, 1)
    plain = toy(50, 0.3, -0.4, backend, objective=ELBO(2, "score_function", baseline=None))
    for found, want in zip(row_gradients(model, 1.0, 1), row_gradients(plain, 1.0, 1), strict=True):
        torch.testing.assert_close(found, want)
    first = plain(x, seed=1).log_likelihood.mean().item()
    assert mean.value(torch.float64).item() == pytest.approx(first)
    second = model(x, seed=2).log_likelihood.mean().item()
    want = (0.9 * first + second) / 1.9
    assert mean.value(torch.float64).item() == pytest.approx(want)
    model.eval()(x, seed=3)
    assert mean.value(torch.float64).item() == pytest.approx(want)
    assert "objective_state.running_mean.sums" in model.state_dict()


def test_a_row_or_sample_alone_has_the_baseline_zero(backend: str) -> None:
    model = toy(1, 0.3, -0.4, backend, objective=ELBO(estimator="score_function"))
    plain = toy(1, 0.3, -0.4, backend, objective=ELBO(estimator="score_function", baseline=None))
    assert row_gradients(model, 1.0, 1) == row_gradients(plain, 1.0, 1)


def test_bounds_rise_with_k_to_the_evidence_of_a_linear_vae(backend: str) -> None:
    bounds = {}
    for count in (1, 2, 5, 20, 100):
        model, x, evidence = linear_vae(backend, 1.0, objective=IWAE(count))
        bounds[count] = model(x, seed=count).elbo
    elbo = linear_vae(backend, 1.0)[0](x, seed=9).elbo
    rows = [elbo, *(bounds[count] for count in (2, 5, 20, 100)), evidence]
    assert abs((bounds[1] - elbo).mean()) < NORMAL_QUANTILE * standard_error(bounds[1] - elbo)
    for lower, higher in pairwise(rows[:-1]):
        assert (higher - lower).mean() > NORMAL_QUANTILE * standard_error(higher - lower)
    # The gap that is left is of the order 1/K.
    gap = evidence - bounds[100]
    assert -NORMAL_QUANTILE * standard_error(gap) < gap.mean() < 0.02


def test_iwae_reports_its_terms(backend: str) -> None:
    """kl and log_likelihood of the samples; the bound without beta, the loss with it."""
    model = small(backend, objective=IWAE(3, beta=0.5))
    x = torch.randn(5, 6, dtype=torch.float64)
    out = model(x, seed=4)
    z, mean, logvar = out.z, out.posterior_mean, out.posterior_logvar
    normal = torch.distributions.Normal
    ratio = normal(0.0, 1.0).log_prob(z) - normal(mean, (logvar / 2).exp()).log_prob(z)
    ratio, ll = ratio.sum(-1), normal(out.mean, 1.0).log_prob(x).sum(-1)
    torch.testing.assert_close(out.kl, -ratio.mean(0))
    torch.testing.assert_close(out.log_likelihood, ll.mean(0))
    torch.testing.assert_close(out.elbo, torch.logsumexp(ll + ratio, 0) - math.log(3))
    want = -(torch.logsumexp(ll + 0.5 * ratio, 0) - math.log(3)).mean()
    torch.testing.assert_close(out.loss, want)
    assert out.z.shape == (3, 5, 4) and not any(t.requires_grad for t in out[1:4])


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("estimator", ["score_function", "stl"])
def test_given_noise(estimator: str, count: int, backend: str) -> None:
    model = small(backend, objective=ELBO(count, estimator))
    x = torch.randn(5, 6, dtype=torch.float64)
    lead = () if count == 1 else (count,)
    eps = F.noise((5, 4), seed=8, num_samples=count if lead else None, dtype=torch.float64,
                  backend=backend)  # fmt: skip
    for found, want in zip(
        *(torch.autograd.grad(model(x, **noise).loss, list(model.parameters()))
          for noise in ({"eps": eps}, {"seed": 8})), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, want)
    assert model(x, seed=8).z.shape == (*lead, 5, 4)


OBJECTIVES = [
    ELBO(2, "score_function", baseline="running_mean"),
    ELBO(2, "stl", beta=0.5),
    ELBO(free_bits=FreeBits(0.1, per="group", groups={"a": [0], "b": [1, 2, 3]})),
    ELBO(free_bits=FreeBits(0.1, per="element"), balance=0.7),
    IWAE(3),
    IWAE(3, "stl"),
    pytest.param(IWAE(3, "dreg"), id="dreg"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tracing an autograd.Function
@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_compiled(objective: ELBO | IWAE, backend: str) -> None:
    if objective.estimator == "dreg" and backend == "reference":
        pytest.skip("plain autograd has no compiled form for weights that come back to it")
    torch._dynamo.reset()
    prior = GaussianPrior(4, 0.3, learned=True)
    eager = small(backend, objective=objective, prior=prior).float()
    again = small(backend, objective=objective, prior=prior).float()
    compiled = torch.compile(again, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 6)
    for seed in range(3):
        outputs = [m(x, seed=torch.tensor(seed)) for m in (compiled, eager)]
        torch.testing.assert_close(outputs[0].loss, outputs[1].loss, rtol=1e-5, atol=1e-5)
        found, want = (
            torch.autograd.grad(out.loss, list(model.parameters()))
            for out, model in zip(outputs, (again, eager), strict=True)
        )
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again.state_dict(), eager.state_dict())
