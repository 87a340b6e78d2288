"""What a forward pass gives."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.utils import _pytree


class VAEOutput(NamedTuple):
    """What a forward pass gives. N rows; per-row values are in nats and detached.

    ``elbo`` is the bound on log p(x), whatever beta and the controls of the KL are: for ``ELBO``
    log_likelihood - kl, for ``IWAE`` the importance-weighted bound, which is above that. ``kl`` is
    in closed form, except where the objective samples it (``IWAE``, and ``ELBO`` with "stl"):
    there it is the mean of log q(z|x) - log p(z) over the samples, which may be negative.
    """

    loss: Tensor  # [], to minimise
    elbo: Tensor  # [N]
    log_likelihood: Tensor  # [N], averaged over the samples
    kl: Tensor  # [N]
    z: Tensor  # [N, *latent], or [L, N, *latent] for L > 1 samples
    posterior_mean: Tensor  # [N, *latent]
    posterior_logvar: Tensor  # [N, *latent]
    mean: Tensor  # of p(x|z), [N, *input_shape], or with L in front
    logvar: Tensor | None  # as mean; [*input_shape] per feature; [] if shared or optimal; or None


# torch writes no named tuple into an exported program that it has no name for.
_pytree._register_namedtuple(VAEOutput, serialized_type_name="vae_fast.VAEOutput")
