"""What an objective is, and what it sees of a model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from vae_fast.objectives.state import ObjectiveState
from vae_fast.output import VAEOutput


class Model(Protocol):
    """What an objective sees of a model. ``FusedVAE`` has it."""

    training: bool
    backend: str | None  # of the ops
    decoder_logvar_min: float
    objective_state: Any  # what ``make_state`` has made

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x)."""

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and log-variance of p(x|z)."""

    def decode_for(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """``decode``, with the variance that is best for x where the model is to take that."""

    def prior_arguments(self) -> dict[str, Any]:
        """``prior_mean`` and ``prior_logvar``, nothing where the prior is N(0, I)."""


@runtime_checkable
class Objective(Protocol):
    """What ``FusedVAE`` optimises. A class of your own inherits from it, or has its methods.

    It is a value: what changes while a model is trained belongs to the state that it makes. As a
    frozen dataclass it can be compared and stored.

    >>> import dataclasses, torch
    >>> from vae_fast import FusedVAE
    >>> from vae_fast.objectives import ELBO
    >>> @dataclasses.dataclass(frozen=True)
    ... class Halved(ELBO):
    ...     def __call__(self, model, x, seed=None, eps=None, row_offset=0):
    ...         out = super().__call__(model, x, seed, eps, row_offset)
    ...         return out._replace(loss=out.loss / 2)
    >>> model = FusedVAE(6, 2, (4,), objective=Halved())
    >>> model(torch.zeros(3, 6)).loss.shape
    torch.Size([])
    """

    @abstractmethod
    def __call__(
        self,
        model: Model,
        x: Tensor,  # [N, *input_shape]
        seed: int | Tensor | None = None,
        eps: Tensor | None = None,
        row_offset: int = 0,
    ) -> VAEOutput:
        """The loss of a batch and what it is made of, as ``FusedVAE.forward`` returns it."""
        raise NotImplementedError

    def check_model(
        self, latent_shape: Sequence[int], prior_learns: bool, decoder_variance: str
    ) -> None:
        """Raises ValueError where a model of this kind cannot have the objective."""

    def make_state(self, latent_shape: Sequence[int]) -> ObjectiveState:
        """What a model keeps for the objective: this, or an instance of a derived class."""
        return ObjectiveState()
