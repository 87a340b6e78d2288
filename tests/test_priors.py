"""Priors and decoder variances of FusedVAE."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Backend, require
from tolerances import NORMAL_QUANTILE
from torch import Tensor, nn

from vae_fast import FusedVAE, GaussianPrior
from vae_fast.objectives import ELBO, IWAE


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> str:
    require(Backend(request.param, "cpu"))
    return request.param


def small(backend: str, **options) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(6, 4, (8,), backend=backend, **options)


def double(**options) -> FusedVAE:
    return small("reference", **options).double()


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("objective", [ELBO(), ELBO(estimator="stl"), IWAE(3)], ids=str)
def test_the_kl_is_that_from_the_prior(objective: ELBO | IWAE, learned: bool, backend: str) -> None:
    start = torch.tensor([0.5, -1.0, 0.0, 2.0])
    prior = GaussianPrior(4, start, -0.7, learned=learned)
    model = small(backend, prior=prior, objective=objective).double()
    out = model(torch.randn(5, 6, dtype=torch.float64), seed=3)
    normal = torch.distributions.Normal
    p = normal(start.double(), math.exp(-0.35))
    q = normal(out.posterior_mean, (out.posterior_logvar / 2).exp())
    if objective == ELBO():
        want = torch.distributions.kl_divergence(q, p).sum(-1)
    else:
        z = out.z if out.z.dim() == 3 else out.z[None]
        want = (q.log_prob(z) - p.log_prob(z)).sum(-1).mean(0)
    torch.testing.assert_close(out.kl, want.detach(), rtol=1e-6, atol=1e-6)
    out.loss.backward()
    names = {name for name, p in model.named_parameters() if name.startswith("prior.")}
    assert names == ({"prior.mean", "prior.logvar"} if learned else set())
    assert all(p.grad.abs().max() > 0 for p in prior.parameters())
    assert {"prior.mean", "prior.logvar"} <= set(model.state_dict())


def test_samples_come_from_the_prior(backend: str) -> None:
    prior = GaussianPrior(4, torch.tensor([0.5, -1.0, 0.0, 2.0]), -0.7, learned=True)
    model = FusedVAE(4, 4, decoder=nn.Identity(), decoder_variance="fixed", prior=prior,
                     backend=backend)  # fmt: skip
    drawn = model.sample(20_000, seed=1)
    scaled = (drawn - prior.mean.detach()) * math.exp(0.35)
    assert (scaled.mean(0).abs() * math.sqrt(20_000)).max() < NORMAL_QUANTILE
    assert ((scaled.square().mean(0) - 1).abs() * math.sqrt(10_000)).max() < NORMAL_QUANTILE
    assert not drawn.requires_grad


def test_a_standard_prior_given_is_the_default(backend: str) -> None:
    x = torch.randn(5, 6)
    outputs = [
        small(backend, prior=prior)(x, seed=3)
        for prior in (None, GaussianPrior((4,), learned=False))
    ]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)


def test_a_latent_map_has_a_prior_of_its_shape() -> None:
    prior = GaussianPrior((2, 3, 3), torch.zeros(2, 1, 1), 0.1, learned=True)
    assert prior.mean.shape == prior.logvar.shape == (2, 3, 3)
    assert "latent_shape=(2, 3, 3), learned=True" in repr(prior)
    with pytest.raises(ValueError, match=r"mean must broadcast to the latent shape \(4,\); got"):
        GaussianPrior(4, torch.zeros(3), learned=True)


class Returns(nn.Module):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> object:
        return self.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(4), r"the prior must return \(mean, logvar\); got Tensor"),
        ((torch.zeros(4), torch.zeros(3)), r"logvar of the prior .*to \(4,\); got \(3,\)"),
        ((torch.zeros(5, 4), torch.zeros(4)), r"mean of the prior .*to \(4,\); got \(5, 4\)"),
        ((torch.zeros(4), None), r"logvar of the prior must be a tensor; got NoneType"),
    ],
)
def test_what_a_prior_returns(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small("reference", prior=Returns(value))(torch.zeros(5, 6))


def test_a_prior_of_ones_own_broadcasts(backend: str) -> None:
    own = Returns((torch.tensor(0.5), torch.zeros(1)))
    given = GaussianPrior(4, 0.5, learned=False)
    outputs = [small(backend, prior=prior)(torch.ones(5, 6), seed=3) for prior in (own, given)]
    torch.testing.assert_close(outputs[0].kl, outputs[1].kl)
    assert small(backend, prior=own).sample(3, seed=1).shape == (3, 6)


def test_one_variance_a_feature(backend: str) -> None:
    """Of the event's shape, never of the batch's; its gradient is the sum."""
    model = small(backend, decoder_variance="per_feature", num_samples=2).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    nn.init.normal_(model.decoder_logvar)
    out = model(x, seed=1)
    assert out.logvar is model.decoder_logvar and out.logvar.shape == (6,)
    logvar = model.decoder_logvar.detach().requires_grad_()
    p = torch.distributions.Normal(out.mean, (logvar / 2).exp())
    ll = p.log_prob(x).sum(-1).mean(0)
    torch.testing.assert_close(out.log_likelihood, ll.detach())
    found = torch.autograd.grad(out.loss, model.decoder_logvar)
    torch.testing.assert_close(found, torch.autograd.grad(-ll.mean(), logvar))
    assert model.sample(3, seed=1, add_noise=True).shape == (3, 6)
    shaped = FusedVAE((2, 3), 4, (8,), decoder_variance="per_feature", backend=backend)
    assert shaped(torch.zeros(5, 2, 3)).logvar.shape == (2, 3)


def mean_squared_error(model: FusedVAE, x: Tensor, seed: int) -> Tensor:
    mean, logvar = model.encode(x)
    eps = (model(x, seed=seed).z - mean) / (logvar / 2).exp()
    z = mean + (logvar / 2).exp() * eps.detach()
    return (x - model.decode(z)[0]).square().mean()


@pytest.mark.parametrize("num_samples", [1, 3])
def test_the_optimal_variance(num_samples: int, backend: str) -> None:
    """The loss is D/2 (ln 2πMSE + 1) + KL, and its gradient that of it, the MSE's logarithm too."""
    model = small(backend, decoder_variance="optimal", num_samples=num_samples, beta=0.5).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    out = model(x, seed=3)
    error = mean_squared_error(model, x, 3)
    torch.testing.assert_close(out.logvar, error.log().detach())
    nll = 3 * (torch.log(2 * math.pi * error) + 1)
    torch.testing.assert_close(-out.log_likelihood.mean(), nll.detach())
    q = torch.distributions.Normal(out.posterior_mean, (out.posterior_logvar / 2).exp())
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    want = nll + 0.5 * kl.mean()
    torch.testing.assert_close(out.loss, want)
    parameters = list(model.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(out.loss, parameters, retain_graph=True),
        torch.autograd.grad(want, parameters),
        rtol=1e-8, atol=1e-10,
    )  # fmt: skip


def test_the_optimal_variance_is_clamped_below() -> None:
    model = double(decoder_variance="optimal", decoder_logvar_min=2.0)
    x = torch.randn(5, 6, dtype=torch.float64)
    assert mean_squared_error(model, x, 3).log() < 2
    out = model(x, seed=3)
    assert out.logvar.item() == 2
    exact = FusedVAE(6, 6, encoder=nn.Identity(), decoder=nn.Identity(),
                     decoder_variance="optimal", backend="reference")  # fmt: skip
    mean, logvar = exact.decode_for(x.float(), x.float())
    assert torch.equal(mean, x.float()) and logvar.item() == -6


def test_a_running_mean_of_the_variance_serves_in_eval_mode(backend: str) -> None:
    model = small(backend, decoder_variance="optimal").double()
    x = torch.randn(5, 6, dtype=torch.float64)
    assert model.decode(torch.zeros(2, 4).double())[1].item() == 0  # before training, 1
    first, second = (model(s * x, seed=3).logvar.exp().item() for s in (1, 2))
    want = (0.9 * first + second) / 1.9
    model.eval()
    out = model(x, seed=4)
    assert out.logvar.exp().item() == pytest.approx(want)
    p = torch.distributions.Normal(out.mean, math.sqrt(want))
    torch.testing.assert_close(out.log_likelihood, p.log_prob(x).sum(-1).detach())
    # And is kept with the weights.
    twin = small(backend, decoder_variance="optimal").double().eval()
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x, seed=4).loss, out.loss)
    assert "squared_error.sums" in model.state_dict()
    noisy, mean = (model.sample(2000, seed=3, add_noise=add) for add in (True, False))
    scaled = (noisy - mean).square().mean() / want
    assert abs(scaled.item() - 1) * math.sqrt(noisy.numel() / 2) < NORMAL_QUANTILE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_optimal_variance_in_other_dtypes(dtype: torch.dtype, backend: str) -> None:
    model = small(backend, decoder_variance="optimal").to(dtype)
    assert model.squared_error.sums.dtype is torch.float64
    for _ in range(2):
        out = model(torch.randn(5, 6, dtype=dtype), seed=3)
        assert out.loss.dtype is out.logvar.dtype is torch.float32
        out.loss.backward()
        model.eval()
    assert all(p.grad.dtype is dtype for p in model.parameters())


@pytest.mark.parametrize("variance", ["per_feature", "optimal"])
def test_compiled(variance: str, backend: str) -> None:
    torch._dynamo.reset()
    eager, again = (small(backend, decoder_variance=variance, num_samples=2) for _ in range(2))
    compiled = torch.compile(again, fullgraph=True, backend="aot_eager")
    x = torch.randn(5, 6)
    for seed in range(2):
        outputs = [m(x, seed=torch.tensor(seed)) for m in (compiled, eager)]
        torch.testing.assert_close(outputs[0].loss, outputs[1].loss, rtol=1e-5, atol=1e-5)
        found, want = (
            torch.autograd.grad(out.loss, list(model.parameters()))
            for out, model in zip(outputs, (again, eager), strict=True)
        )
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again.state_dict(), eager.state_dict())
