"""Objectives: what ``FusedVAE`` optimises, and how its gradient is estimated.

    FusedVAE(784, objective=ELBO(num_samples=8, estimator="score_function"))
    FusedVAE(784, objective=IWAE(50, estimator="dreg"))
    FusedVAE(784, objective=ELBO(beta=Linear(0.0, 1.0, 10_000), free_bits=FreeBits(0.1)))

An objective is a frozen value, checked when it is made. What changes while a model is trained (the
present values of schedules, running means) is kept in the model. One of your own is a class derived
from ``Objective``.
"""

from vae_fast.objectives.control import FreeBits
from vae_fast.objectives.elbo import ELBO
from vae_fast.objectives.iwae import IWAE
from vae_fast.objectives.objective import Model, Objective
from vae_fast.objectives.schedules import Constant, Cosine, Cyclical, Linear, Schedule
from vae_fast.objectives.state import ObjectiveState

__all__ = (
    "ELBO",
    "IWAE",
    "Constant",
    "Cosine",
    "Cyclical",
    "FreeBits",
    "Linear",
    "Model",
    "Objective",
    "ObjectiveState",
    "Schedule",
)
