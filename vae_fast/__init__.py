"""Fused kernels for Gaussian variational autoencoders in PyTorch."""

import os

from vae_fast import functional, objectives
from vae_fast._backends import BackendStatus, backends
from vae_fast._version import __version__
from vae_fast.errors import BackendUnavailableError
from vae_fast.model import FusedVAE
from vae_fast.output import VAEOutput
from vae_fast.priors import GaussianPrior

__all__ = [
    "BackendStatus",
    "BackendUnavailableError",
    "FusedVAE",
    "GaussianPrior",
    "VAEOutput",
    "__version__",
    "backends",
    "functional",
    "objectives",
]

# In a checkout kernels/ stands beside this folder, once installed inside it; it is vae_fast.kernels
# either way.
_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isdir(os.path.join(_root, "csrc")):
    __path__.append(_root)
