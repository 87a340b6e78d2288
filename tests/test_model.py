"""FusedVAE: what it returns, the networks it takes, and what it refuses."""

from __future__ import annotations

import copy
import io
import math
import pickle

import oracle
import pytest
import torch
from conftest import Backend
from tolerances import NORMAL_QUANTILE
from torch import Tensor, nn

from vae_fast import FusedVAE, VAEOutput

BOUNDS = (-30.0, 20.0)


def batch(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=dtype)


def small(backend: Backend, **options) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(12, 3, (16, 8), backend=backend.name, **options).to(backend.device)


class ConvEncoder(nn.Module):
    """Images to a latent map: both parameters in one tensor, along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 6, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ConvDecoder(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose2d(3, 2 * outputs, 4, stride=2, padding=1)
        self.outputs = outputs

    def forward(self, z: Tensor) -> Tensor | tuple[Tensor, ...]:
        made = self.layer(z)
        return made.chunk(2, dim=1) if self.outputs == 2 else made


def assert_is_the_oracle(model: FusedVAE, x: Tensor, out: VAEOutput, eps: Tensor) -> None:
    """Everything in ``out`` recomputed in float64 from the parameters that it names."""
    double = {n: None if t is None else t.detach().double() for n, t in out._asdict().items()}
    x, dims = x.double(), x.dim() - 1
    mean, logvar = double["posterior_mean"], double["posterior_logvar"]
    latent_dims = mean.dim() - 1
    kl = oracle.gaussian_kl(mean, logvar, None, None, latent_dims, BOUNDS)
    z = oracle.sample(mean, logvar, eps, BOUNDS)
    bounds = (model.decoder_logvar_min, BOUNDS[1])
    ll = oracle.gaussian_log_likelihood(x, double["mean"], double["logvar"], dims, bounds)
    if out.mean.dim() > x.dim():
        ll = ll.mean(0)
    want = {"z": z, "kl": kl, "log_likelihood": ll, "elbo": ll - kl,
            "loss": (model.beta * kl - ll).mean()}  # fmt: skip
    for name, value in want.items():
        torch.testing.assert_close(double[name], value, rtol=1e-5, atol=1e-4, msg=name)


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("variance", ["learned", "shared", "fixed"])
def test_forward(variance: str, num_samples: int, backend: Backend) -> None:
    options = {"decoder_variance": variance, "num_samples": num_samples, "beta": 0.5}
    model = small(backend, **options)
    x = batch(5, 12).to(backend.device)
    out = model(x, seed=9)
    lead = () if num_samples == 1 else (num_samples,)
    assert isinstance(out, VAEOutput)
    assert out.loss.shape == () and out.loss.dtype is torch.float32
    assert out.z.shape == (*lead, 5, 3) and out.mean.shape == (*lead, 5, 12)
    assert out.posterior_mean.shape == out.posterior_logvar.shape == (5, 3)
    shapes = {"learned": (*lead, 5, 12), "shared": (), "fixed": None}
    assert (out.logvar if out.logvar is None else out.logvar.shape) == shapes[variance]
    for row in (out.elbo, out.log_likelihood, out.kl):
        assert row.shape == (5,) and not row.requires_grad
    eps = oracle.noise((5, 3), 9, 1, num_samples=num_samples if lead else None)
    assert_is_the_oracle(model, x.cpu(), out, eps)


@pytest.mark.parametrize("variance", ["learned", "shared", "fixed"])
def test_every_parameter_is_trained(variance: str, backend: Backend) -> None:
    """And a few steps lower the loss on data that has something to learn."""
    model = small(backend, decoder_variance=variance)
    x = (batch(64, 1) * torch.linspace(-1, 1, 12)).to(backend.device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(60):
        optimizer.zero_grad()
        loss = model(x, seed=step).loss
        loss.backward()
        if step == 0:
            assert all(p.grad is not None and p.grad.any() for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] - 1


@pytest.mark.parametrize("variance", ["learned", "shared"])
@pytest.mark.parametrize("num_samples", [1, 2])
def test_convolutions_with_a_latent_map(num_samples: int, variance: str, backend: Backend) -> None:
    decoder = ConvDecoder(2 if variance == "learned" else 1)
    model = FusedVAE(
        (2, 8, 8), (3, 4, 4), encoder=ConvEncoder(), decoder=decoder, num_samples=num_samples,
        decoder_variance=variance, backend=backend.name,
    ).to(backend.device)  # fmt: skip
    x = batch(5, 2, 8, 8).to(backend.device, memory_format=torch.channels_last)
    out = model(x, seed=1)
    lead = () if num_samples == 1 else (2,)
    assert out.z.shape == (*lead, 5, 3, 4, 4) and out.mean.shape == (*lead, 5, 2, 8, 8)
    assert out.kl.shape == out.log_likelihood.shape == (5,)
    eps = oracle.noise((5, 3, 4, 4), 1, 3, num_samples=num_samples if lead else None)
    assert_is_the_oracle(model, x.cpu(), out, eps)
    out.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.sample(3).shape == (3, 2, 8, 8) and model.reconstruct(x).shape == x.shape


def test_backends_train_alike(backend: Backend) -> None:
    """The same seed and weights: the same loss and gradients on every backend."""
    made = []
    for chosen in (Backend("reference", "cpu"), backend):
        model = small(chosen, num_samples=2)
        out = model(batch(5, 12).to(chosen.device), seed=4)
        out.loss.backward()
        made.append([out.loss.detach().cpu(), *(p.grad.cpu() for p in model.parameters())])
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_encode_decode_sample_reconstruct(backend: Backend) -> None:
    model = small(backend)
    x = batch(5, 12).to(backend.device)
    mean, logvar = model.encode(x)
    assert mean.shape == logvar.shape == (5, 3) and mean.requires_grad
    decoded = model.decode(mean)
    assert decoded[0].shape == decoded[1].shape == (5, 12)
    stacked = model.decode(torch.stack([mean, -mean]))
    assert stacked[0].shape == stacked[1].shape == (2, 5, 12)
    torch.testing.assert_close(stacked[0][0], decoded[0])
    assert torch.equal(model.reconstruct(x), decoded[0].detach())
    assert not model.reconstruct(x).requires_grad and not model.sample(2).requires_grad
    shared = small(backend, decoder_variance="shared")
    assert shared.decode(mean)[1].shape == ()
    assert small(backend, decoder_variance="fixed").decode(mean)[1] is None


def test_samples_are_decoded_prior_noise(backend: Backend) -> None:
    model = small(backend)
    z = oracle.noise((6, 3), 5, 1).float().to(backend.device)
    torch.testing.assert_close(model.sample(6, seed=5), model.decode(z)[0].detach())
    assert torch.equal(model.sample(6, seed=5), model.sample(6, seed=5))
    assert not torch.equal(model.sample(6, seed=5), model.sample(6, seed=6))
    torch.manual_seed(1)
    drawn = model.sample(6)
    assert not torch.equal(drawn, model.sample(6))
    torch.manual_seed(1)
    assert torch.equal(drawn, model.sample(6))
    assert model.sample(0).shape == (0, 12)


@pytest.mark.parametrize("variance", ["learned", "shared", "fixed"])
def test_samples_with_noise_have_the_decoder_variance(variance: str, backend: Backend) -> None:
    model = small(backend, decoder_variance=variance)
    if variance == "shared":
        nn.init.constant_(model.decoder_logvar, -1.0)
    means, noisy = (model.sample(4000, seed=5, add_noise=noise) for noise in (False, True))
    z = oracle.noise((4000, 3), 5, 1).float().to(backend.device)
    logvar = {"learned": model.decode(z)[1], "shared": torch.tensor(-1.0), "fixed": torch.zeros(())}
    deviation = logvar[variance].detach().clamp(min=-6).mul(0.5).exp()
    scaled = ((noisy - means) / deviation.to(means.device)).double()
    count = scaled.numel()
    assert abs(scaled.mean().item()) * math.sqrt(count) < NORMAL_QUANTILE
    assert abs(scaled.square().mean().item() - 1) * math.sqrt(count / 2) < NORMAL_QUANTILE
    # Noise of its own, not that of z again.
    assert (
        abs((scaled[:, :3].cpu() * z.cpu()).mean().item()) * math.sqrt(4000 * 3) < NORMAL_QUANTILE
    )


def test_seeds_reproduce_and_without_one_the_global_seed_governs(backend: Backend) -> None:
    model = small(backend)
    x = batch(5, 12).to(backend.device)
    assert torch.equal(model(x, seed=3).z, model(x, seed=3).z)
    assert not torch.equal(model(x, seed=3).z, model(x, seed=4).z)
    assert not torch.equal(model(x).z, model(x).z)
    torch.manual_seed(8)
    first = model(x).z
    torch.manual_seed(8)
    assert torch.equal(model(x).z, first)
    eps = torch.zeros(5, 3, device=backend.device)
    out = model(x, eps=eps)
    assert torch.equal(out.z, out.posterior_mean)


def test_ranks_of_a_split_batch_get_the_noise_of_the_whole(backend: Backend) -> None:
    model = small(backend)
    x = batch(6, 12).to(backend.device)
    whole = model(x, seed=3)
    parts = [model(x[r : r + 3], seed=3, row_offset=r) for r in (0, 3)]
    torch.testing.assert_close(torch.cat([p.z for p in parts]), whole.z)
    torch.testing.assert_close(torch.cat([p.elbo for p in parts]), whole.elbo)


def test_beta_weighs_the_kl_and_can_be_set(backend: Backend) -> None:
    model = small(backend)
    x = batch(5, 12).to(backend.device)
    for beta in (0.0, 0.3, 4.0):
        model.beta = beta
        out = model(x, seed=3)
        assert model.beta == beta
        torch.testing.assert_close(out.loss.detach(), (beta * out.kl - out.log_likelihood).mean())
        torch.testing.assert_close(out.elbo, out.log_likelihood - out.kl)
    model.beta = 0.1
    assert model.double().half().float().beta == 0.1
    assert model(x, seed=3).loss.item() == pytest.approx(
        (0.1 * out.kl - out.log_likelihood).mean().item(), rel=1e-5
    )


def test_the_decoder_log_variance_is_clamped_below(backend: Backend) -> None:
    x = batch(5, 12).to(backend.device)
    model = small(backend, decoder_variance="shared", decoder_logvar_min=-2.0)
    nn.init.constant_(model.decoder_logvar, -50.0)
    out = model(x, seed=3)
    assert_is_the_oracle(model, x.cpu(), out, oracle.noise((5, 3), 3, 1))
    out.loss.backward()
    assert model.decoder_logvar.grad.item() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(dtype: torch.dtype, backend: Backend) -> None:
    model = small(backend).to(dtype)
    x = batch(5, 12).to(backend.device, dtype)
    out = model(x, seed=3)
    assert out.z.dtype is out.mean.dtype is dtype
    rows = torch.float64 if dtype is torch.float64 else torch.float32
    assert out.kl.dtype is out.elbo.dtype is out.loss.dtype is rows
    out.loss.backward()
    assert all(p.grad.dtype is dtype and p.grad.isfinite().all() for p in model.parameters())


def test_copies(backend: Backend) -> None:
    """Deep copies, pickles and state dicts, which other backends load too, compute the same."""
    model = small(backend, decoder_variance="shared", num_samples=2, beta=0.7)
    x = batch(5, 12).to(backend.device)
    want = model(x, seed=3)
    stored = io.BytesIO()
    torch.save(model.state_dict(), stored)
    stored.seek(0)
    other = Backend("reference", backend.device)
    loaded = FusedVAE(12, 3, (16, 8), backend=other.name, decoder_variance="shared",
                      num_samples=2, beta=0.7).to(backend.device)  # fmt: skip
    loaded.load_state_dict(torch.load(stored, weights_only=True), strict=True)
    same = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    for twin in same:
        assert repr(twin) == repr(model) and twin.beta == 0.7
        assert torch.equal(twin(x, seed=3).loss, want.loss)
        twin.beta = 0.2
        assert model.beta == 0.7 and torch.equal(model(x, seed=3).loss, want.loss)
    torch.testing.assert_close(loaded(x, seed=3).loss, want.loss)


def test_the_state_dict_holds_what_is_learned_and_nothing_else(backend: Backend) -> None:
    model = small(backend, decoder_variance="shared")
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert "decoder_logvar" in model.state_dict()


def test_functional_call(backend: Backend) -> None:
    model = small(backend)
    x = batch(5, 12).to(backend.device)
    doubled = {name: (2 * p).detach().requires_grad_() for name, p in model.named_parameters()}
    loss = torch.func.functional_call(model, doubled, (x,), {"seed": 3}).loss
    gradients = torch.autograd.grad(loss, list(doubled.values()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    want = model(x, seed=3).loss
    want.backward()
    assert torch.equal(loss, want)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.equal(gradient, parameter.grad)


def test_extra_repr(backend: Backend) -> None:
    text = repr(small(backend, decoder_variance="shared", beta=0.25, num_samples=4))
    for part in ("(12,)", "(3,)", "'shared'", "-6.0", "0.25", "4", repr(backend.name)):
        assert part in text
