"""Fused kernels for Gaussian variational autoencoders in PyTorch."""

from vae_fast import functional
from vae_fast._backends import BackendStatus, backends
from vae_fast.errors import BackendUnavailableError
from vae_fast.model import FusedVAE, VAEOutput

__all__ = [
    "BackendStatus",
    "BackendUnavailableError",
    "FusedVAE",
    "VAEOutput",
    "backends",
    "functional",
]
