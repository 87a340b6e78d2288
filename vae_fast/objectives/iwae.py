"""The importance-weighted bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import torch
from torch import Tensor

from vae_fast import functional
from vae_fast._checks import integer, one_of
from vae_fast.objectives.control import refuse_control
from vae_fast.objectives.objective import Model, Objective
from vae_fast.objectives.schedules import Constant, Schedule, as_schedule, settle, weight
from vae_fast.objectives.state import ObjectiveState
from vae_fast.output import VAEOutput

ESTIMATORS = ("reparameterization", "dreg", "stl")


@dataclass(frozen=True)
class IWAE(Objective):
    r"""The importance-weighted bound on log p(x), which rises with K to log p(x).

    .. math:: loss = -mean_n \ln \frac{1}{K} Σ_k e^{w_{kn}}, \quad
        w_{kn} = \ln p(x_n|z_{kn}) + β(\ln p(z_{kn}) - \ln q(z_{kn}|x_n))

    Args:
        num_samples: K, samples of z a row. With one it is the ELBO.
        estimator: of the gradient that the encoder gets. "reparameterization": the bound's
            derivative, whose signal-to-noise ratio falls as K^(-1/2). "dreg" (doubly
            reparameterised): as unbiased, and its ratio rises with K. "stl" (sticking the
            landing): leaves the derivative of ln q(z|x) by its parameters out, which for K > 1
            does not have mean 0; so it is biased, with a low variance.
        beta: β, a number or a schedule. Other values than 1 give no bound, and "dreg" cannot
            take them: its weights are those of β = 1.
        free_bits, capacity, balance: refused. They are of ``ELBO`` and need a KL in closed form.

    Raises:
        TypeError: a value is of another type.
        ValueError: a value is not as described, or two do not go together.

    Source: Burda, Grosse & Salakhutdinov 2016, "Importance weighted autoencoders"; Rainforth et
    al. 2018, "Tighter variational bounds are not necessarily better"; Tucker et al. 2019, "Doubly
    reparameterized gradient estimators for Monte Carlo objectives".
    """

    num_samples: int
    estimator: str = "reparameterization"
    beta: float | Schedule = 1.0
    free_bits: InitVar[None] = None
    capacity: InitVar[None] = None
    balance: InitVar[None] = None

    def __post_init__(self, free_bits: None, capacity: None, balance: None) -> None:
        one_of("estimator", self.estimator, ESTIMATORS)
        settle(
            self,
            num_samples=integer("num_samples", self.num_samples, 1),
            beta=weight("beta", self.beta),
        )
        if self.estimator == "dreg" and as_schedule("beta", self.beta) != Constant(1):
            raise ValueError(f"beta must be 1 for estimator='dreg'; got {self.beta!r}")
        refuse_control("IWAE", free_bits, capacity, balance)

    def check_model(
        self, latent_shape: Sequence[int], prior_learns: bool, decoder_variance: str
    ) -> None:
        if decoder_variance == "optimal":
            raise ValueError(
                "decoder_variance='optimal' is that of the ELBO, in closed form, and IWAE has "
                "none; got both"
            )

    def make_state(self, latent_shape: Sequence[int]) -> ObjectiveState:
        return ObjectiveState(self.beta)

    def __call__(
        self,
        model: Model,
        x: Tensor,  # [N, *input_shape]
        seed: int | Tensor | None = None,
        eps: Tensor | None = None,
        row_offset: int = 0,
    ) -> VAEOutput:
        """The loss of a batch, as ``FusedVAE.forward`` returns it."""
        backend = model.backend
        posterior_mean, posterior_logvar = model.encode(x)
        z, log_ratio = functional.sample_log_weights(
            posterior_mean,
            posterior_logvar,
            **model.prior_arguments(),
            num_samples=self.num_samples if self.num_samples > 1 else None,
            eps=eps,
            seed=seed,
            row_offset=row_offset,
            estimator=self.estimator,
            backend=backend,
        )
        mean, logvar = model.decode_for(x, z)
        log_likelihood = functional.gaussian_log_likelihood(
            x, mean, logvar, logvar_min=model.decoder_logvar_min, backend=backend
        )
        if self.num_samples == 1:
            log_likelihood, log_ratio = log_likelihood[None], log_ratio[None]
        beta = model.objective_state.of("beta").on(log_ratio.device)
        weighted, _ = functional.importance_weighted_elbo(
            log_likelihood + beta * log_ratio, backend=backend
        )
        with torch.no_grad():  # which the loss has weighted by beta
            bound, _ = functional.importance_weighted_elbo(
                log_likelihood + log_ratio, backend=backend
            )
        return VAEOutput(
            loss=-weighted.mean(),
            elbo=bound,
            log_likelihood=log_likelihood.detach().mean(0),
            kl=-log_ratio.detach().mean(0),
            z=z,
            posterior_mean=posterior_mean,
            posterior_logvar=posterior_logvar,
            mean=mean,
            logvar=logvar,
        )
