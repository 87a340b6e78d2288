"""``FusedVAE``: a Gaussian variational autoencoder around any encoder and decoder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vae_fast import _shapes, functional
from vae_fast._checks import FLOATING, broadcasts, integer, one_of, real
from vae_fast._evidence import log_likelihood
from vae_fast._sharding import inside, is_fully_sharded, with_whole_parameters
from vae_fast.networks import GaussianMLP
from vae_fast.objectives.elbo import ELBO
from vae_fast.objectives.objective import Objective
from vae_fast.objectives.state import RunningMean
from vae_fast.output import VAEOutput

DECODER_VARIANCES = ("learned", "per_feature", "shared", "fixed", "optimal")


def _read_logvar(_: nn.Module, state: dict[str, Any], prefix: str, *rest: object) -> None:
    """Takes a shared log-variance from before it had a dimension."""
    for name in ("decoder_logvar", "parametrizations.decoder_logvar.original"):
        value = state.get(prefix + name)
        if isinstance(value, Tensor) and value.dim() == 0:
            state[prefix + name] = value.detach().reshape(1)


def _replaced(objective: Any, **changes: Any) -> Any:
    """The objective with other values; TypeError where it has none of that name."""
    known = dataclasses.fields(objective) if dataclasses.is_dataclass(objective) else ()
    if not changes.keys() <= {field.name for field in known}:
        raise TypeError(
            f"{', '.join(changes)} can be set of an objective that is a dataclass with that field; "
            f"got {type(objective).__name__}"
        )
    return dataclasses.replace(objective, **changes)


class FusedVAE(nn.Module):
    """Variational autoencoder with Gaussian encoder q(z|x), decoder p(x|z) and prior p(z).

    Trained by minimising ``model(x).loss``, by default the negative ELBO, by reparameterisation.
    Where ``fully_shard`` has cut the parameters up, all processes have to call each method.

    Args:
        input_shape: event shape of x, an int or a tuple.
        latent_dim: event shape of z, an int or a tuple.
        hidden_dims: widths of the default encoder's hidden layers; the decoder has them reversed.
        encoder: module taking x ``[N, *input_shape]``, returning ``(mean, logvar)`` of q(z|x),
            each ``[N, *latent]``, or one tensor with both along dimension 1; default an MLP.
        decoder: module taking z ``[N, *latent]``, in the dtype of its own parameters if they have
            one, returning the same of p(x|z) where ``decoder_variance`` is "learned", else the mean
            alone; default an MLP.
        decoder_variance: "learned", Σ_θ(z) per element; "per_feature", one learned value for each
            element of x, whatever z is; "shared", one learned scalar; "fixed", 1; "optimal", the
            mean squared error of the batch, which is the best scalar, and a running mean of it
            in eval mode.
        decoder_logvar_min: lower clamp of the decoder's log-variance. A pixel that never changes
            makes the likelihood of a learned variance unbounded.
        beta: weight of the KL in the loss; settable, and never recompiles a compiled model.
        num_samples: L, Monte-Carlo samples of z a row; settable.
        objective: what is optimised and how, of ``vae_fast.objectives`` or of your own; None:
            ``ELBO`` with beta and num_samples, which an objective has itself.
        prior: module returning the mean and the log-variance of p(z), broadcastable to
            ``[*latent]``, such as ``GaussianPrior``; None: N(0, I).
        backend: of the ops, as in ``vae_fast.functional``.

    Raises:
        TypeError: an argument is of another type. Any whole or real number is a number, NumPy's
            too; a bool and a tensor are none.
        ValueError: an argument, or an output of a given network, is not as described, or two
            arguments do not go together.

    Source: Kingma & Welling 2014, "Auto-Encoding Variational Bayes"; for "optimal" Rybkin,
    Daniilidis & Levine 2021, "Simple and effective VAE training with calibrated decoders".
    """

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
        objective: Objective | None = None,
        prior: nn.Module | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        one_of("decoder_variance", decoder_variance, DECODER_VARIANCES)
        decoder_logvar_min = float(real("decoder_logvar_min", decoder_logvar_min))
        if not decoder_logvar_min <= functional.LOGVAR_MAX:
            raise ValueError(
                f"decoder_logvar_min must be at most {functional.LOGVAR_MAX}; "
                f"got {decoder_logvar_min!r}"
            )
        self.input_shape = _shapes.event_shape("input_shape", input_shape)
        self.latent_shape = _shapes.event_shape("latent_dim", latent_dim)
        hidden = _shapes.event_shape("hidden_dims", hidden_dims, least=0)
        if objective is None:
            objective = ELBO(num_samples, beta=beta)
        elif (beta, num_samples) != (1.0, 1):
            raise ValueError(
                "beta and num_samples must be given to the objective where there is one; got "
                f"beta={beta!r} and num_samples={num_samples!r} beside {objective!r}"
            )
        elif isinstance(objective, type) or not isinstance(objective, Objective):
            raise TypeError(
                "objective must be an Objective, such as ELBO() and IWAE(5), with __call__, "
                f"check_model and make_state; got {objective!r}"
            )
        prior_learns = prior is not None and any(p.requires_grad for p in prior.parameters())
        objective.check_model(self.latent_shape, prior_learns, decoder_variance)
        self.decoder_variance = decoder_variance
        self.decoder_logvar_min = decoder_logvar_min
        self.backend = backend
        self.objective = objective
        self.objective_state = objective.make_state(self.latent_shape)
        if encoder is None:
            encoder = GaussianMLP(self.input_shape, hidden, self.latent_shape, outputs=2)
        if decoder is None:
            outputs = 2 if decoder_variance == "learned" else 1
            decoder = GaussianMLP(self.latent_shape, hidden[::-1], self.input_shape, outputs)
        self.encoder = encoder
        self.decoder = decoder
        self.prior = prior
        if decoder_variance == "shared":
            # Of one element, not 0-dim, which could not be sharded.
            self.decoder_logvar = nn.Parameter(torch.zeros(1))
            self.register_load_state_dict_pre_hook(_read_logvar)
        elif decoder_variance == "per_feature":
            self.decoder_logvar = nn.Parameter(torch.zeros(self.input_shape))
        elif decoder_variance == "optimal":
            self.squared_error = RunningMean(1.0)

    @property
    def beta(self) -> float:
        """Present weight of the KL in the loss, of an objective that has it. Setting it ends the
        objective's schedule."""
        scheduled = self.objective_state.beta
        if scheduled is None:
            raise AttributeError  # torch says of what
        return scheduled.value

    @beta.setter
    def beta(self, value: float) -> None:
        # Made for its checks only: compiled code would notice another objective.
        _replaced(self.objective, beta=value)
        self.objective_state.of("beta").set(value)

    @property
    def num_samples(self) -> int:
        """Samples of z a row, of an objective that has them."""
        if not hasattr(self.objective, "num_samples"):
            raise AttributeError  # likewise
        return self.objective.num_samples

    @num_samples.setter
    def num_samples(self, value: int) -> None:
        self.objective = _replaced(self.objective, num_samples=value)

    def set_step(self, step: int) -> None:
        """Give the objective's schedules their values at optimiser step ``step`` (0, 1, 2, ...).

        They are written into tensors, so that a compiled model is not compiled again.
        """
        self.objective_state.set_step(integer("step", step, 0))

    @with_whole_parameters
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), each ``[N, *latent]``; x is ``[N, *input_shape]``."""
        if not isinstance(x, Tensor):
            raise TypeError(f"x must be a torch.Tensor; got {type(x).__name__}")
        _shapes.check_event("x", x, self.input_shape)
        return _shapes.mean_logvar("the encoder", self.encoder(x), self.latent_shape)

    @with_whole_parameters
    def decode(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of p(x|z), ``[..., *input_shape]``; z is ``[..., *latent]``.

        The log-variance is ``[*input_shape]`` per feature, 0-dim where it is shared or optimal
        (of the running mean), and None where it is fixed.
        """
        lead = z.shape[: z.dim() - len(self.latent_shape)]
        if not lead or z.shape[len(lead) :] != self.latent_shape:
            expected = ", ".join(map(str, ("...", *self.latent_shape)))
            raise ValueError(f"z must have shape [{expected}]; got {tuple(z.shape)}")
        z = self._as_decoder_takes(z)
        output = self.decoder(z.flatten(0, len(lead) - 1) if len(lead) > 1 else z)
        logvar: Tensor | None = None
        if self.decoder_variance == "learned":
            mean, logvar = _shapes.mean_logvar("the decoder", output, self.input_shape)
        else:
            mean = output
            _shapes.check_event("the mean of the decoder", mean, self.input_shape)
            if self.decoder_variance == "optimal":
                logvar = self._logvar_of(self.squared_error.value(self._wide(mean)))
            elif self.decoder_variance == "shared":
                logvar = self.decoder_logvar.reshape(())
            elif self.decoder_variance == "per_feature":
                logvar = self.decoder_logvar
        if len(lead) > 1:
            mean = mean.unflatten(0, lead)
            if self.decoder_variance == "learned" and logvar is not None:
                logvar = logvar.unflatten(0, lead)
        return mean, logvar

    def _as_decoder_takes(self, z: Tensor) -> Tensor:
        """z in the dtype of the decoder's parameters, where they have one and it is another."""
        dtypes = (p.dtype for p in self.decoder.parameters() if p.dtype in FLOATING)
        dtype = next(dtypes, z.dtype)
        if dtype == z.dtype or torch.is_autocast_enabled(z.device.type):
            return z
        return z.to(dtype) if all(other == dtype for other in dtypes) else z

    def _dtype_and_device(self) -> tuple[torch.dtype, torch.device]:
        """Of what the decoder takes, as far as its tensors say, or else those of other parts."""
        parts = [part for part in (self.decoder, self.encoder, self.prior) if part is not None]
        tensors = [t for part in parts for t in (*part.parameters(), *part.buffers())]
        for tensor in (*tensors, *self.parameters()):
            if tensor.dtype in FLOATING:
                return tensor.dtype, tensor.device
        return torch.get_default_dtype(), torch.empty(0).device

    def decode_for(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """``decode`` as an objective needs it: in training mode with the variance optimal for x."""
        mean, logvar = self.decode(z)
        if self.decoder_variance == "optimal" and self.training:
            with torch.no_grad():
                # Constant, and the gradient of the mean loss is exact all the same: at the
                # variance that minimises it, its derivative by the variance is 0 (and where the
                # clamp holds, the variance does not change).
                sums = functional.squared_error(x, mean, backend=self.backend)
                error = sums.mean() / math.prod(self.input_shape)
                self.squared_error.update(error)
                logvar = self._logvar_of(error)
        return mean, logvar

    def _logvar_of(self, variance: Tensor) -> Tensor:
        return variance.log().clamp(self.decoder_logvar_min, functional.LOGVAR_MAX)

    @staticmethod
    def _wide(tensor: Tensor) -> torch.dtype:
        return torch.promote_types(tensor.dtype, torch.float32)

    def prior_arguments(self) -> dict[str, Any]:
        """The prior as the ops take it, nothing where it is N(0, I)."""
        if self.prior is None:
            return {}
        mean, logvar = _shapes.pair("the prior", self.prior())
        for name, value in (("mean", mean), ("logvar", logvar)):
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"the {name} of the prior must be a tensor; got {type(value).__name__}"
                )
            broadcasts(f"the {name} of the prior", value, torch.Size(self.latent_shape))
        return {"prior_mean": mean, "prior_logvar": logvar}

    def forward(
        self,
        x: Tensor,
        seed: int | Tensor | None = None,
        eps: Tensor | None = None,
        row_offset: int = 0,
    ) -> VAEOutput:
        """Loss of x ``[N, *input_shape]``, and what it is made of.

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
        if is_fully_sharded(self):
            with inside(self):
                return self.objective(self, x, seed, eps, row_offset)
        return self.objective(self, x, seed, eps, row_offset)

    @torch.no_grad()
    @with_whole_parameters
    def log_likelihood(
        self,
        x: Tensor,
        num_samples: int = 5000,
        *,
        chunk: int | None = None,
        seed: int | Tensor | None = None,
        row_offset: int = 0,
    ) -> Tensor:
        r"""ln p(x) of each row by importance sampling, without gradients.

        .. math:: \ln \frac{1}{K} Σ_k p(x|z_k) p(z_k) / q(z_k|x), \quad z_k \sim q(z|x)

        A lower bound in expectation, which rises with K to ln p(x).

        Args:
            x: ``[N, *input_shape]``.
            num_samples: K.
            chunk: how many samples are decoded at once, which decides about memory, and beyond
                rounding not about the result; None: as many as have about 4 million elements.
                After ``fully_shard``, give it where processes have different numbers of rows.
            seed, row_offset: as in ``forward``.

        Returns:
            ``[N]`` in nats, float64.

        Raises:
            TypeError, ValueError, BackendUnavailableError: as ``forward``.

        Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders".
        """
        return log_likelihood(self, x, num_samples, chunk, seed, row_offset)

    @torch.no_grad()
    @with_whole_parameters
    def sample(
        self, num: int, *, seed: int | Tensor | None = None, add_noise: bool = False
    ) -> Tensor:
        """New x: z from the prior, then the mean of p(x|z), ``[num, *input_shape]``.

        Args:
            num: how many.
            seed: of z and of the noise; where None, one each from torch's default generator.
            add_noise: draw x ~ p(x|z) rather than take its mean.
        """
        num = integer("num", num, 0)
        dtype, device = self._dtype_and_device()
        zero = torch.zeros((), dtype=dtype, device=device)
        prior = self.prior_arguments() or {"prior_mean": zero, "prior_logvar": zero}
        mean, logvar = (p.to(zero).expand(num, *self.latent_shape) for p in prior.values())
        z, *_ = functional.sample_kl(mean, logvar, seed=seed, backend=self.backend)
        mean, decoded = self.decode(z)
        if not add_noise:
            return mean
        logvar_min = self.decoder_logvar_min
        if decoded is None:  # unit variance, which has no clamp
            decoded, logvar_min = mean.new_zeros(()), functional.LOGVAR_MIN
        # The rows behind those of z: other noise than theirs from the same seed.
        x, *_ = functional.sample_kl(
            mean, decoded, seed=seed, row_offset=num * math.prod(self.latent_shape),
            logvar_min=logvar_min, backend=self.backend,
        )  # fmt: skip
        return x

    @torch.no_grad()
    @with_whole_parameters
    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean of p(x|z) at the posterior mean of each row of x, ``[N, *input_shape]``."""
        return self.decode(self.encode(x)[0])[0]

    def extra_repr(self) -> str:
        names = (
            "input_shape", "latent_shape", "decoder_variance", "decoder_logvar_min", "beta",
            "num_samples", "objective", "backend",
        )  # fmt: skip
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names if hasattr(self, name))
