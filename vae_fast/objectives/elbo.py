"""The evidence lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vae_fast import functional
from vae_fast._checks import integer, number, one_of
from vae_fast.autograd.noise import draw_seed
from vae_fast.objectives.baselines import BASELINES, baseline_of, chosen
from vae_fast.objectives.control import FreeBits, refuse_control, sample_controlled
from vae_fast.objectives.objective import Model, Objective
from vae_fast.objectives.schedules import Schedule, settle, weight
from vae_fast.objectives.state import ObjectiveState
from vae_fast.output import VAEOutput

ESTIMATORS = ("reparameterization", "score_function", "stl")


@dataclass(frozen=True)
class ELBO(Objective):
    r"""The evidence lower bound, with its KL divergence weighted and controlled.

    .. math:: loss = β·R(kl) - mean_{l, n} \ln p(x_n|z_{ln})

    R is the mean over the rows, or what ``free_bits`` or ``capacity`` make of it.

    Args:
        num_samples: L, samples of z a row.
        estimator: of the gradient that the encoder gets. "reparameterization": through z.
            "score_function": that of the log-likelihood as (ln p(x|z) - baseline) ∇ ln q(z|x),
            for decoders that have no gradient in z; that of the KL in closed form. "stl"
            (sticking the landing): through z only, with the KL sampled too; its variance goes to
            0 as q(z|x) comes near p(z|x).
        beta: β, a number or a schedule.
        free_bits: nats of KL that cost nothing, ``FreeBits``.
        capacity: C in nats, a number or a schedule: R is \|mean_n kl - C\|.
        balance: α: the KL's gradients to the prior are multiplied by α, those to the encoder by
            1 - α. For a prior that learns.
        baseline: of the score function. "leave_one_out": the mean of the row's other samples;
            "batch_mean": that of the other rows; "running_mean": of the batches before, kept in
            the model; "auto": the first where there is more than one sample, else the second;
            None: 0.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is not as described, or two do not go together.

    Source: Kingma & Welling 2014; Higgins et al. 2017, "beta-VAE"; Williams 1992, and Mnih &
    Gregor 2014 (score function); Roeder, Wu & Duvenaud 2017 ("stl"); Burgess et al. 2018,
    "Understanding disentangling in β-VAE" (capacity); Hafner et al. 2021 (balance).
    """

    num_samples: int = 1
    estimator: str = "reparameterization"
    beta: float | Schedule = 1.0
    free_bits: FreeBits | None = None
    capacity: float | Schedule | None = None
    balance: float | None = None
    baseline: str | None = "auto"

    def __post_init__(self) -> None:
        one_of("estimator", self.estimator, ESTIMATORS)
        if self.free_bits is not None and not isinstance(self.free_bits, FreeBits):
            raise TypeError(f"free_bits must be a FreeBits or None; got {self.free_bits!r}")
        settle(
            self,
            num_samples=integer("num_samples", self.num_samples, 1),
            beta=weight("beta", self.beta),
            capacity=None if self.capacity is None else weight("capacity", self.capacity),
            balance=None if self.balance is None else number("balance", self.balance, 0, 1),
        )
        if self.free_bits is not None and self.capacity is not None:
            raise ValueError(
                "at most one of free_bits and capacity may be given; got "
                f"{self.free_bits!r} and {self.capacity!r}"
            )
        if self.estimator == "stl":
            refuse_control("estimator='stl'", self.free_bits, self.capacity, self.balance)
        self._check_baseline()

    def _check_baseline(self) -> None:
        if self.baseline is not None:
            one_of("baseline", self.baseline, BASELINES)
        if self.estimator != "score_function" and self.baseline not in ("auto", None):
            raise ValueError(
                "a baseline needs estimator='score_function'; got "
                f"baseline={self.baseline!r} and estimator={self.estimator!r}"
            )
        if self.baseline == "leave_one_out" and self.num_samples < 2:
            raise ValueError(
                "baseline='leave_one_out' needs num_samples of at least 2; got "
                f"{self.num_samples!r}"
            )

    def check_model(
        self, latent_shape: Sequence[int], prior_learns: bool, decoder_variance: str
    ) -> None:
        if self.free_bits is not None:
            self.free_bits.membership(latent_shape)
        if self.balance is not None and not prior_learns:
            raise ValueError(
                f"balance needs a prior that learns; got balance={self.balance!r} and one that "
                "does not"
            )
        if decoder_variance == "optimal" and self.estimator == "score_function":
            raise ValueError(
                "decoder_variance='optimal' depends on all samples of the batch, and "
                "estimator='score_function' needs a signal of each sample alone; got both"
            )

    def make_state(self, latent_shape: Sequence[int]) -> ObjectiveState:
        return ObjectiveState(
            self.beta,
            self.capacity,
            None if self.free_bits is None else self.free_bits.membership(latent_shape),
            self.estimator == "score_function" and self.baseline == "running_mean",
        )

    def __call__(
        self,
        model: Model,
        x: Tensor,  # [N, *input_shape]
        seed: int | Tensor | None = None,
        eps: Tensor | None = None,
        row_offset: int = 0,
    ) -> VAEOutput:
        """The loss of a batch, as ``FusedVAE.forward`` returns it.

        β, the capacity and what else changes is what the model holds of it, which must have been
        made with an objective that has it too.
        """
        posterior_mean, posterior_logvar = model.encode(x)
        by_score = self.estimator == "score_function"
        if by_score and eps is None and seed is None:  # two ops have to share it
            seed = draw_seed(posterior_mean, None)
        noise: dict[str, Any] = {
            "num_samples": self.num_samples if self.num_samples > 1 else None,
            "eps": eps,
            "seed": seed,
            "row_offset": row_offset,
        }
        if self.estimator == "stl":
            z, log_ratio = functional.sample_log_weights(
                posterior_mean, posterior_logvar, **model.prior_arguments(), **noise,
                estimator="stl", backend=model.backend,
            )  # fmt: skip
            penalty = -log_ratio if self.num_samples == 1 else -log_ratio.mean(0)
            kl = penalty.detach()
        else:
            z, kl, penalty = sample_controlled(
                model, posterior_mean, posterior_logvar, noise, self.free_bits, self.balance,
                self.capacity is not None,
            )  # fmt: skip
        if by_score:
            z = z.detach()
        mean, logvar = model.decode_for(x, z)
        beta = model.objective_state.of("beta").on(mean.device)
        options: dict[str, Any] = {"logvar_min": model.decoder_logvar_min, "backend": model.backend}
        if by_score:
            signal = functional.gaussian_log_likelihood(x, mean, logvar, **options)
            log_likelihood = signal.detach()
            signal = self._with_score(model, signal, posterior_mean, posterior_logvar, noise)
            loss = beta.to(penalty.dtype) * penalty.mean() - signal.mean()
            if self.num_samples > 1:
                log_likelihood = log_likelihood.mean(0)
        else:
            loss, log_likelihood = functional.negative_elbo_terms(
                x, mean, logvar, penalty, beta=beta, **options
            )
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

    def _with_score(
        self,
        model: Model,
        signal: Tensor,  # [N] or [L, N], the log-likelihood
        mean: Tensor,  # [N, *latent]
        logvar: Tensor,  # [N, *latent]
        noise: dict[str, Any],
    ) -> Tensor:
        """``signal`` with the score-function gradient for the encoder."""
        baseline = baseline_of(
            chosen(self.baseline, self.num_samples),
            signal.detach(),
            model.objective_state.running_mean,
            model.training,
        )
        return functional.score_function(
            signal, mean, logvar, baseline=baseline, **noise, backend=model.backend
        )
