"""``FusedVAE``: a Gaussian variational autoencoder around any encoder and decoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vae_fast import functional
from vae_fast.networks import GaussianMLP

DECODER_VARIANCES = ("learned", "shared", "fixed")


class VAEOutput(NamedTuple):
    """What a forward pass gives. N rows; per-row values are in nats and detached."""

    loss: Tensor  # [], to minimise
    elbo: Tensor  # [N], log_likelihood - kl, whatever beta is
    log_likelihood: Tensor  # [N], averaged over the samples
    kl: Tensor  # [N]
    z: Tensor  # [N, *latent], or [L, N, *latent] for L > 1 samples
    posterior_mean: Tensor  # [N, *latent]
    posterior_logvar: Tensor  # [N, *latent]
    mean: Tensor  # of p(x|z), [N, *input_shape], or with L in front
    logvar: Tensor | None  # of p(x|z): as mean; [] if shared; None if fixed


def _shape(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    shape = (value,) if isinstance(value, int) else tuple(value)
    if not shape or any(not isinstance(size, int) or size < 1 for size in shape):
        raise ValueError(f"{name} must be a positive int or a tuple of them; got {value!r}")
    return shape


def _mean_logvar(name: str, output: object, event_shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``(mean, logvar)`` from a network that gives the two, or one tensor with both in dim 1."""
    if isinstance(output, Tensor):
        if output.dim() < 2 or output.shape[1] != 2 * event_shape[0]:
            raise ValueError(
                f"{name} must return (mean, logvar), or one tensor with both along dimension 1, "
                f"[N, {2 * event_shape[0]}, ...]; got shape {tuple(output.shape)}"
            )
        mean, logvar = output.chunk(2, dim=1)
    elif isinstance(output, (tuple, list)) and len(output) == 2:
        mean, logvar = output
    else:
        raise ValueError(
            f"{name} must return (mean, logvar) or one tensor; got {type(output).__name__}"
        )
    _check_event(f"the mean of {name}", mean, event_shape)
    _check_event(f"the logvar of {name}", logvar, event_shape)
    return mean, logvar


def _check_event(name: str, value: object, event_shape: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor; got {type(value).__name__}")
    if value.shape[1:] != event_shape:
        expected = ", ".join(map(str, ("N", *event_shape)))
        raise ValueError(f"{name} must have shape [{expected}]; got {tuple(value.shape)}")


class FusedVAE(nn.Module):
    """Variational autoencoder with Gaussian encoder q(z|x), decoder p(x|z) and prior N(0, I).

    Trained by minimising ``model(x).loss``, the negative ELBO, by reparameterisation.

    Args:
        input_shape: event shape of x, an int or a tuple.
        latent_dim: event shape of z, an int or a tuple.
        hidden_dims: widths of the default encoder's hidden layers; the decoder has them reversed.
        encoder: module taking x ``[N, *input_shape]``, returning ``(mean, logvar)`` of q(z|x),
            each ``[N, *latent]``, or one tensor with both along dimension 1; default an MLP.
        decoder: module taking z ``[N, *latent]``, returning the same of p(x|z) where
            ``decoder_variance`` is "learned", else the mean alone; default an MLP.
        decoder_variance: "learned", Σ_θ(z) per element; "shared", one learned scalar; "fixed", 1.
        decoder_logvar_min: lower clamp of the decoder's log-variance. A pixel that never changes
            makes the likelihood of a learned variance unbounded.
        beta: weight of the KL in the loss; settable, and never recompiles a compiled model.
        num_samples: L, Monte-Carlo samples of z a row.
        backend: of the ops, as in ``vae_fast.functional``.

    Raises:
        ValueError: an argument, or an output of a given network, is not as described.

    Source: Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
    """

    _beta: Tensor

    def __init__(
        self,
        input_shape: int | Sequence[int],
        latent_dim: int | Sequence[int] = 32,
        hidden_dims: Sequence[int] = (512, 256),
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        decoder_variance: str = "learned",
        decoder_logvar_min: float = -6.0,
        beta: float = 1.0,
        num_samples: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if decoder_variance not in DECODER_VARIANCES:
            raise ValueError(
                f"decoder_variance must be one of {', '.join(map(repr, DECODER_VARIANCES))}; "
                f"got {decoder_variance!r}"
            )
        if not isinstance(num_samples, int) or num_samples < 1:
            raise ValueError(f"num_samples must be an int of at least 1; got {num_samples!r}")
        if not decoder_logvar_min <= functional.LOGVAR_MAX:
            raise ValueError(
                f"decoder_logvar_min must be at most {functional.LOGVAR_MAX}; "
                f"got {decoder_logvar_min!r}"
            )
        self.input_shape = _shape("input_shape", input_shape)
        self.latent_shape = _shape("latent_dim", latent_dim)
        hidden = _shape("hidden_dims", hidden_dims) if hidden_dims else ()
        self.decoder_variance = decoder_variance
        self.decoder_logvar_min = decoder_logvar_min
        self.num_samples = num_samples
        self.backend = backend
        # A tensor and not a number, so that a compiled model does not depend on its value.
        self.register_buffer("_beta", torch.zeros((), dtype=torch.float64), persistent=False)
        self._beta_value = 0.0
        self.beta = beta
        if encoder is None:
            encoder = GaussianMLP(self.input_shape, hidden, self.latent_shape, outputs=2)
        if decoder is None:
            outputs = 2 if decoder_variance == "learned" else 1
            decoder = GaussianMLP(self.latent_shape, hidden[::-1], self.input_shape, outputs)
        self.encoder = encoder
        self.decoder = decoder
        if decoder_variance == "shared":
            self.decoder_logvar = nn.Parameter(torch.zeros(()))

    @property
    def beta(self) -> float:
        """Weight of the KL in the loss."""
        return self._beta_value

    @beta.setter
    def beta(self, value: float) -> None:
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"beta must be finite and at least 0; got {value!r}")
        self._beta_value = float(value)
        self._beta.fill_(self._beta_value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FusedVAE:
        super()._apply(fn, recurse)
        # A change of the module's dtype must not round beta.
        self._beta = torch.full_like(self._beta, self._beta_value, dtype=torch.float64)
        return self

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each ``[N, *latent]``; x is ``[N, *input_shape]``."""
        self._check_input(x)
        return _mean_logvar("the encoder", self.encoder(x), self.latent_shape)

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of p(x|z), ``[..., *input_shape]``; z is ``[..., *latent]``.

        The log-variance is 0-dim where it is shared, and None where it is fixed.
        """
        lead = z.shape[: z.dim() - len(self.latent_shape)]
        if not lead or z.shape[len(lead) :] != self.latent_shape:
            expected = ", ".join(map(str, ("...", *self.latent_shape)))
            raise ValueError(f"z must have shape [{expected}]; got {tuple(z.shape)}")
        output = self.decoder(z.flatten(0, len(lead) - 1) if len(lead) > 1 else z)
        logvar: Tensor | None = None
        if self.decoder_variance == "learned":
            mean, logvar = _mean_logvar("the decoder", output, self.input_shape)
        else:
            mean = output
            _check_event("the mean of the decoder", mean, self.input_shape)
            if self.decoder_variance == "shared":
                logvar = self.decoder_logvar
        if len(lead) > 1:
            mean = mean.unflatten(0, lead)
            if self.decoder_variance == "learned" and logvar is not None:
                logvar = logvar.unflatten(0, lead)
        return mean, logvar

    def forward(
        self,
        x: Tensor,
        seed: int | Tensor | None = None,
        eps: Tensor | None = None,
        row_offset: int = 0,
    ) -> VAEOutput:
        """Negative ELBO of x ``[N, *input_shape]``, and what it is made of.

        Args:
            x: the batch.
            seed, eps, row_offset: of the noise, as in ``functional.sample_kl``. Rank r of a
                data-parallel run passes ``r * N`` and the seed of the other ranks, and its rows
                get the noise that one process would have given them.

        Returns:
            ``VAEOutput``, whose ``loss`` is to be minimised.

        Raises:
            TypeError, ValueError: x, seed, eps, or an output of a given network, does not fit.
            BackendUnavailableError: the model's backend cannot run x.
        """
        posterior_mean, posterior_logvar = self.encode(x)
        z, kl = functional.sample_kl(
            posterior_mean,
            posterior_logvar,
            num_samples=self.num_samples if self.num_samples > 1 else None,
            eps=eps,
            seed=seed,
            row_offset=row_offset,
            backend=self.backend,
        )
        mean, logvar = self.decode(z)
        loss, log_likelihood = functional.negative_elbo_terms(
            x,
            mean,
            logvar,
            kl,
            beta=self._beta,
            logvar_min=self.decoder_logvar_min,
            backend=self.backend,
        )
        kl = kl.detach()
        return VAEOutput(
            loss=loss,
            elbo=log_likelihood - kl,
            log_likelihood=log_likelihood,
            kl=kl,
            z=z,
            posterior_mean=posterior_mean,
            posterior_logvar=posterior_logvar,
            mean=mean,
            logvar=logvar,
        )

    @torch.no_grad()
    def sample(
        self, num: int, *, seed: int | Tensor | None = None, add_noise: bool = False
    ) -> Tensor:
        """New x from the prior: z ~ N(0, I), then the mean of p(x|z), ``[num, *input_shape]``.

        Args:
            num: how many.
            seed: of z and of the noise; where None, one each from torch's default generator.
            add_noise: draw x ~ p(x|z) rather than take its mean.
        """
        if not isinstance(num, int) or num < 0:
            raise ValueError(f"num must be an int of at least 0; got {num!r}")
        reference = next(self.parameters())
        zeros = torch.zeros((), dtype=reference.dtype, device=reference.device).expand(
            num, *self.latent_shape
        )
        z, _ = functional.sample_kl(zeros, zeros, seed=seed, backend=self.backend)
        mean, logvar = self.decode(z)
        if not add_noise:
            return mean
        logvar_min = self.decoder_logvar_min
        if logvar is None:  # unit variance, which has no clamp
            logvar, logvar_min = mean.new_zeros(()), functional.LOGVAR_MIN
        # The rows behind those of z: other noise than theirs from the same seed.
        x, _ = functional.sample_kl(
            mean, logvar, seed=seed, row_offset=num * math.prod(self.latent_shape),
            logvar_min=logvar_min, backend=self.backend,
        )  # fmt: skip
        return x

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(x|z) at the posterior mean of each row of x, ``[N, *input_shape]``."""
        return self.decode(self.encode(x)[0])[0]

    def _check_input(self, x: Tensor) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor; got {type(x).__name__}")
        _check_event("x", x, self.input_shape)

    def extra_repr(self) -> str:
        return (
            f"input_shape={self.input_shape}, latent_shape={self.latent_shape}, "
            f"decoder_variance={self.decoder_variance!r}, "
            f"decoder_logvar_min={self.decoder_logvar_min}, beta={self.beta}, "
            f"num_samples={self.num_samples}, backend={self.backend!r}"
        )
