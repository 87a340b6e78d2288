"""The ops as work to be timed: their inputs at a size, and the memory they cannot but move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

import vae_fast.functional as F
from bench.device import DTYPES, Setting

DIRECTIONS = ("forward", "backward", "both")
CHANNELS = 4  # of a latent image, as diffusers' autoencoders have them


class Size(NamedTuple):
    rows: int
    latent: int  # event elements on the encoder's side
    data: int  # and on the decoder's

    def label(self, op: Op) -> str:
        """What the tables call it."""
        return f"{self.rows}x{'+'.join(str(getattr(self, side)) for side in op.moves)}"

    def __str__(self) -> str:
        return f"{self.rows}x{self.latent}"


SIZES = (
    Size(128, 20, 784),
    Size(256, 64, 12288),
    Size(4096, 128, 3072),
    Size(1024, 32, 20000),
    Size(64, 16384, 16384),
)
# Of the estimators: rows, latents, and so many samples a row.
ESTIMATOR_SIZES = (Size(128, 32, 784), Size(1024, 64, 784))
SAMPLES = 50
SEED = 1  # of the sample whose score is taken
# Of the curves: 2^k elements on the side of the op, in rows of 128 latents or 1,024 data.
# The comparison with float64 takes up to 4 GiB at 2^24.
CURVE_POWERS = (10, 12, 14, 16, 18, 20, 22, 24)
ACCELERATOR_POWERS = (*CURVE_POWERS, 26, 28)
CURVE_LATENT, CURVE_DATA = 128, 1024


class Inputs(NamedTuple):
    """One set of arguments."""

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


class Maker:
    """Makes random tensors of a setting; those of one number a row are float32, as a KL is."""

    def __init__(self, setting: Setting) -> None:
        self.device, self.dtype = setting.device, setting.dtype

    def leaf(self, *shape: int, scale: float = 1.0) -> Tensor:
        return self.data(*shape).mul_(scale).requires_grad_()

    def data(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device).to(self.dtype)

    def per_row(self, rows: int) -> Tensor:
        return torch.randn(rows, device=self.device)

    def posterior(self, size: Size) -> tuple[Tensor, Tensor]:
        return self.leaf(size.rows, size.latent), self.leaf(size.rows, size.latent, scale=0.5)

    def reconstruction(self, size: Size) -> tuple[Tensor, Tensor, Tensor]:
        """x, mean and log-variance."""
        shape = size.rows, size.data
        return self.data(*shape), self.leaf(*shape), self.leaf(*shape, scale=0.5)


Posterior = tuple[Tensor, Tensor]


class Op(NamedTuple):
    """Every peer takes the same arguments and returns the same tuple of outputs."""

    name: str
    # Elements to be read or written for each element of a side of the size, in each of DIRECTIONS,
    # if nothing were moved twice in one pass; what a row has one of is left out.
    moves: Mapping[str, tuple[int, int, int]]
    inputs: Callable[[Size, Maker], Inputs]
    directions: tuple[str, ...] = DIRECTIONS
    sizes: tuple[Size, ...] = SIZES
    dtypes: tuple[str, ...] = tuple(DTYPES)  # in which every peer is right
    curved: bool = True  # measured at sizes from 2^10 elements up as well
    # Of an op whose first output is a sample: the mean and log-variance among its arguments.
    posterior: Callable[..., Posterior] | None = None

    def elements(self, size: Size) -> int:
        """On the larger of its sides."""
        return size.rows * max(getattr(size, side) for side in self.moves)

    def least_bytes(self, size: Size, direction: str, dtype: torch.dtype) -> int:
        column = DIRECTIONS.index(direction)
        moved = (moves[column] * getattr(size, side) for side, moves in self.moves.items())
        return size.rows * sum(moved) * dtype.itemsize

    def curve(self, kind: str) -> list[Size]:
        """On a kind of device."""
        per_row = CURVE_DATA if "data" in self.moves else CURVE_LATENT
        powers = CURVE_POWERS if kind == "cpu" else ACCELERATOR_POWERS
        return [Size(2**power // per_row, CURVE_LATENT, CURVE_DATA) for power in powers]


def _sample_kl(size: Size, make: Maker) -> Inputs:
    upstream = make.data(size.rows, size.latent), make.per_row(size.rows)
    return Inputs(make.posterior(size), upstream)


def _packed_sample_kl(size: Size, make: Maker) -> Inputs:
    mean, logvar = (t.detach() for t in make.posterior(size))
    shape = size.rows, CHANNELS, size.latent // CHANNELS, 1
    parameters = torch.cat((mean.view(shape), logvar.view(shape)), dim=1).requires_grad_()
    return Inputs((parameters,), (make.data(*shape), make.per_row(size.rows)))


def _gaussian_kl(size: Size, make: Maker) -> Inputs:
    return Inputs(make.posterior(size), (make.per_row(size.rows),))


def _log_likelihood(size: Size, make: Maker) -> Inputs:
    return Inputs(make.reconstruction(size), (make.per_row(size.rows),))


def _negative_elbo(size: Size, make: Maker) -> Inputs:
    kl = make.per_row(size.rows).abs_().mul_(10).requires_grad_()
    return Inputs((*make.reconstruction(size), kl), (None,))


def _elbo(size: Size, make: Maker) -> Inputs:
    # z's gradient would come from the decoder.
    arguments = (*make.posterior(size), *make.reconstruction(size))
    return Inputs(arguments, (make.data(size.rows, size.latent), None))


def _unit_negative_elbo(size: Size, make: Maker) -> Inputs:
    x, mean, _ = make.reconstruction(size)
    return Inputs((*make.posterior(size), x, mean), (None,))


def _iwae(size: Size, make: Maker) -> Inputs:
    """Mean, log-variance and, as from a decoder, log p(x|z) of each sample."""
    log_likelihood = torch.randn(SAMPLES, size.rows, device=make.device)
    upstream = make.data(SAMPLES, size.rows, size.latent), make.per_row(size.rows)
    return Inputs((*make.posterior(size), log_likelihood), upstream)


def _score_function(size: Size, make: Maker) -> Inputs:
    """The signal of each sample, the samples, and the Gaussian that they were drawn from."""
    mean, logvar = make.posterior(size)
    with torch.no_grad():
        z, _ = F.sample_kl(mean, logvar, num_samples=SAMPLES, seed=SEED)
    signal = torch.randn(SAMPLES, size.rows, device=make.device)
    upstream = torch.randn(SAMPLES, size.rows, device=make.device)
    return Inputs((signal, z, mean, logvar), (upstream,))


def _noise(size: Size, make: Maker) -> Inputs:
    return Inputs((make.data(size.rows, size.latent),), ())


def _first_two(*arguments: Tensor) -> Posterior:
    return arguments[0], arguments[1]


def _halves(parameters: Tensor) -> Posterior:
    mean, logvar = parameters.chunk(2, dim=1)
    return mean, logvar


# Of the loss ops, whose gradients can be made while the arguments are at hand, "both" is one pass.
_SAMPLED = (3, 5, 8)
OPS = {
    op.name: op
    for op in (
        Op("sample_kl", {"latent": _SAMPLED}, _sample_kl, posterior=_first_two),
        Op("packed_sample_kl", {"latent": _SAMPLED}, _packed_sample_kl, posterior=_halves),
        Op("gaussian_kl", {"latent": (2, 4, 6)}, _gaussian_kl),
        Op("gaussian_log_likelihood", {"data": (3, 5, 8)}, _log_likelihood),
        Op("negative_elbo", {"data": (3, 2, 5)}, _negative_elbo),
        Op("elbo", {"latent": _SAMPLED, "data": (3, 2, 5)}, _elbo, posterior=_first_two),
        Op("unit_negative_elbo", {"latent": (2, 2, 4), "data": (2, 1, 3)}, _unit_negative_elbo),
        # A floor of 0 leaves the KL as it is, and so the peers without one do the same.
        Op(
            "free_bits_sample_kl",
            {"latent": _SAMPLED},
            _sample_kl,
            curved=False,
            posterior=_first_two,
        ),
        Op(
            "iwae",
            {"latent": (2 + SAMPLES, 4 + SAMPLES, 6 + 2 * SAMPLES)},
            _iwae,
            dtypes=("float32",),  # plain bfloat16 loses a log-weight's digits
            sizes=ESTIMATOR_SIZES,
            curved=False,
            posterior=_first_two,
        ),
        Op(
            "score_function",
            {"latent": (0, 3, 3)},
            _score_function,
            sizes=ESTIMATOR_SIZES,
            curved=False,
        ),
        Op("noise", {"latent": (1, 0, 1)}, _noise, ("forward",)),
    )
}
