"""The ops as work to be timed: inputs of each size, and who does the same work on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import vae_fast.functional as F
from bench import peers

BACKEND = "cpu"
DIRECTIONS = ("forward", "backward", "both")


class Size(NamedTuple):
    rows: int
    latent: int  # event elements on the encoder's side
    data: int  # and on the decoder's

    def label(self, op: Op) -> str:
        """What the tables call it."""
        return f"{self.rows}x{'+'.join(str(getattr(self, side)) for side in op.sides)}"

    def __str__(self) -> str:
        return f"{self.rows}x{self.latent}"


SIZES = (Size(128, 20, 784), Size(256, 64, 12288), Size(4096, 128, 3072), Size(64, 16384, 16384))


class Inputs(NamedTuple):
    """One set of arguments, all float32."""

    arguments: tuple[Tensor, ...]
    upstream: tuple[Tensor | None, ...]  # what arrives for each output; None: the 1 of a scalar

    def clear(self) -> None:
        for tensor in self.arguments:
            tensor.grad = None


def run_backward(inputs: Inputs, outputs: tuple[Tensor, ...]) -> None:
    """Gradients of the outputs into ``.grad`` of the leaves among the arguments."""
    if inputs.upstream[0] is None:  # not a comparison: tensors have an == of their own
        outputs[0].backward()
    else:
        torch.autograd.backward(outputs, inputs.upstream)


Function = Callable[..., tuple[Tensor, ...]]


class Op(NamedTuple):
    """Ours and the eager peer take the same arguments and return a tuple of outputs."""

    name: str
    sides: tuple[str, ...]  # of a Size: what one row has
    inputs: Callable[[Size], Inputs]
    ours: Function
    eager: Function
    directions: tuple[str, ...] = DIRECTIONS

    @property
    def samples(self) -> bool:
        """Whether the first output is a sample, made of noise of the peer's own."""
        return self.name in ("sample_kl", "elbo")


def _random(rows: int, cols: int | None, scale: float = 1.0, leaf: bool = True) -> Tensor:
    shape = (rows,) if cols is None else (rows, cols)
    return torch.randn(shape).mul_(scale).requires_grad_(leaf)


def _posterior(size: Size) -> tuple[Tensor, Tensor]:
    return _random(size.rows, size.latent), _random(size.rows, size.latent, 0.5)


def _reconstruction(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    mean, logvar = _random(size.rows, size.data), _random(size.rows, size.data, 0.5)
    return _random(size.rows, size.data, leaf=False), mean, logvar


def _upstream(rows: int, cols: int | None = None) -> Tensor:
    return _random(rows, cols, leaf=False)


def _sample_kl_inputs(size: Size) -> Inputs:
    return Inputs(_posterior(size), (_upstream(size.rows, size.latent), _upstream(size.rows)))


def _gaussian_kl_inputs(size: Size) -> Inputs:
    return Inputs(_posterior(size), (_upstream(size.rows),))


def _log_likelihood_inputs(size: Size) -> Inputs:
    return Inputs(_reconstruction(size), (_upstream(size.rows),))


def _negative_elbo_inputs(size: Size) -> Inputs:
    kl = torch.rand(size.rows).mul_(20).requires_grad_()
    return Inputs((*_reconstruction(size), kl), (None,))


def _elbo_inputs(size: Size) -> Inputs:
    # z's gradient would come from the decoder.
    return Inputs(
        (*_posterior(size), *_reconstruction(size)), (_upstream(size.rows, size.latent), None)
    )


def _noise_inputs(size: Size) -> Inputs:
    return Inputs((torch.empty(size.rows, size.latent),), ())


def _elbo(
    posterior_mean: Tensor, posterior_logvar: Tensor, x: Tensor, mean: Tensor, logvar: Tensor
) -> tuple[Tensor, Tensor]:
    z, kl = F.sample_kl(posterior_mean, posterior_logvar, backend=BACKEND)
    return z, F.negative_elbo(x, mean, logvar, kl, backend=BACKEND)


def _alone(function: Callable[..., Tensor]) -> Function:
    return lambda *arguments: (function(*arguments),)


OPS = {
    op.name: op
    for op in (
        Op(
            "sample_kl",
            ("latent",),
            _sample_kl_inputs,
            lambda mean, logvar, eps=None: F.sample_kl(mean, logvar, eps=eps, backend=BACKEND),
            peers.sample_kl,
        ),
        Op(
            "gaussian_kl",
            ("latent",),
            _gaussian_kl_inputs,
            lambda mean, logvar: (F.gaussian_kl(mean, logvar, backend=BACKEND),),
            _alone(peers.gaussian_kl),
        ),
        Op(
            "gaussian_log_likelihood",
            ("data",),
            _log_likelihood_inputs,
            lambda x, mean, logvar: (F.gaussian_log_likelihood(x, mean, logvar, backend=BACKEND),),
            _alone(peers.gaussian_log_likelihood),
        ),
        Op(
            "negative_elbo",
            ("data",),
            _negative_elbo_inputs,
            lambda x, mean, logvar, kl: (F.negative_elbo(x, mean, logvar, kl, backend=BACKEND),),
            _alone(peers.negative_elbo),
        ),
        Op("elbo", ("latent", "data"), _elbo_inputs, _elbo, peers.elbo),
        Op(
            "noise",
            ("latent",),
            _noise_inputs,
            lambda like: (F.noise(like.shape, seed=1, backend=BACKEND),),
            _alone(peers.noise),
            ("forward",),
        ),
    )
}
