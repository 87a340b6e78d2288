"""Control of the KL divergence: free bits, capacity, balance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vae_fast import functional
from vae_fast._checks import integer, number, one_of
from vae_fast.objectives.objective import Model
from vae_fast.objectives.schedules import settle

KINDS = ("dimension", "element", "row", "group")


@dataclass(frozen=True)
class FreeBits:
    r"""A KL divergence of λ nats costs nothing: below it a part counts as λ, without gradient.

    Args:
        nats: λ.
        per: the part. With kl[n, d] the KL of row n and latent dimension d,
            "dimension": Σ_d max(λ, mean_n kl[n, d]), after the mean over the batch;
            "element": mean_n Σ_d max(λ, kl[n, d]), for each row and dimension;
            "row": mean_n max(λ, Σ_d kl[n, d]);
            "group": Σ_g max(λ, mean_n Σ_{d in g} kl[n, d]).
        groups: for "group", names and the latent dimensions of each, counted along the flattened
            latent shape. Each dimension belongs to one group.

    Source: Kingma et al. 2016, "Improved variational inference with inverse autoregressive flow",
    equation 15 ("group").
    """

    nats: float
    per: str = "dimension"
    groups: Mapping[str, Sequence[int]] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        settle(self, nats=number("nats", self.nats, 0))
        one_of("per", self.per, KINDS)
        if (self.groups is not None) != (self.per == "group"):
            raise ValueError(
                f"groups must be given with per='group', and only then; got per={self.per!r} and "
                f"groups={self.groups!r}"
            )
        if self.groups is not None:  # a copy: the caller's may change
            settle(self, groups=_dims_of(self.groups))

    def membership(self, latent_shape: Sequence[int]) -> Tensor | None:
        """Which dimensions belong to which group, ``[G, D]``; None where there are no groups."""
        if self.groups is None:
            return None
        size = math.prod(latent_shape)
        given = [dim for dims in self.groups.values() for dim in dims]
        wrong = sorted({d for d in given if d not in range(size) or given.count(d) > 1})
        missing = sorted(set(range(size)) - set(given))
        if wrong or missing:
            raise ValueError(
                f"groups must hold each latent dimension from 0 to {size - 1} once; "
                f"missing are {missing}, twice or out of range {wrong}"
            )
        # On the CPU even where a model is made without memory, and its tensors have no values.
        of_group = torch.zeros(len(self.groups), size, dtype=torch.bool, device="cpu")
        for index, dims in enumerate(self.groups.values()):
            of_group[index, list(dims)] = True
        return of_group


def _dims_of(groups: object) -> dict[str, tuple[int, ...]]:
    if not isinstance(groups, Mapping):
        raise TypeError(f"groups must be a mapping; got {type(groups).__name__}")
    for name, dims in groups.items():
        if not isinstance(dims, Iterable):
            raise TypeError(
                f"groups must hold dimensions by name; got {type(dims).__name__} for {name!r}"
            )
    return {
        name: tuple(integer(f"a dimension of groups[{name!r}]", dim) for dim in dims)
        for name, dims in groups.items()
    }


def at_least(values: Tensor, floor: float) -> Tensor:
    """``values``, of which those below ``floor`` count as it and have no gradient."""
    return torch.where(values < floor, floor, values)


def refuse_control(sampled_by: str, free_bits: object, capacity: object, balance: object) -> None:
    """ValueError where the KL is to be controlled and there is none in closed form."""
    given = {"free_bits": free_bits, "capacity": capacity, "balance": balance}
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ValueError(
            f"free_bits, capacity and balance need the KL in closed form, and {sampled_by} samples "
            f"it: of these only beta may be given; got {', '.join(names)}"
        )


def sample_controlled(
    model: Model,
    mean: Tensor,  # [N, *latent]
    logvar: Tensor,  # [N, *latent]
    noise: dict[str, Any],  # num_samples, eps, seed, row_offset
    bits: FreeBits | None,
    balance: float | None,
    to_capacity: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """z, each row's KL divergence [N], and what beta multiplies, [N], by its mean over the rows."""
    per = None if bits is None else bits.per
    prior = model.prior_arguments()
    z, kl, *sums = functional.sample_kl(
        mean,
        logvar,
        **prior,
        **noise,
        free_bits=bits.nats if bits is not None and per == "element" else None,
        balance=balance,
        return_dims=per in ("dimension", "group"),
        backend=model.backend,
    )
    penalty = kl
    if bits is not None and per == "element":
        with torch.no_grad():
            kl = functional.gaussian_kl(mean, logvar, **prior, backend=model.backend)
    elif bits is not None and per == "row":
        penalty = at_least(kl, bits.nats)
    elif bits is not None:
        means = sums[0].flatten() / kl.shape[0]
        if per == "group":
            groups = model.objective_state.groups_on(means.device)
            means = torch.where(groups, means, 0.0).sum(-1)
        penalty = at_least(means, bits.nats).sum().expand_as(kl)  # whose mean it is
    if to_capacity:
        distance = kl.mean() - model.objective_state.of("capacity").on(kl.device).to(kl.dtype)
        penalty = distance.abs().expand_as(kl)
    return z, kl.detach(), penalty
