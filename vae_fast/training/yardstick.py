"""Probabilistic PCA: what a linear model with as many latents makes of the same rows."""

from __future__ import annotations

import math

import numpy as np
from sklearn.decomposition import PCA
from torch import Tensor


def ppca_log_likelihood(train: Tensor, held_out: Tensor, latent_dim: int) -> float | None:
    """Mean log-likelihood, in nats a row, of ``held_out`` under the PPCA fitted to ``train``.

    .. math:: x ~ N(μ, W W^T + σ² I)

    with the maximum-likelihood μ, W and σ². The value is that of ``sklearn.decomposition.PCA``'s
    ``score``, computed from the components instead of from a D-by-D matrix, so that images of
    many pixels are no obstacle.

    Args:
        train, held_out: ``[N, *event]``.
        latent_dim: columns of W.

    Returns:
        None where there is no such model: the rows leave no variance beyond ``latent_dim``
        directions.

    Source: Tipping & Bishop 1999, "Probabilistic principal component analysis".
    """
    rows, others = (values.flatten(1).double().numpy() for values in (train, held_out))
    features = rows.shape[1]
    if latent_dim >= min(len(rows) - 1, features) or not np.ptp(rows, axis=0).any():
        return None
    pca = PCA(latent_dim, random_state=0).fit(rows)
    noise = float(pca.noise_variance_)
    # Rounding leaves a little where the true remainder is nothing.
    if not noise > 1e-12 * float(pca.explained_variance_.max(initial=0.0)):
        return None
    variances = pca.explained_variance_
    centred = others - pca.mean_
    along = centred @ pca.components_.T
    across = (centred**2).sum(axis=1) - (along**2).sum(axis=1)
    log_determinant = np.log(variances).sum() + (features - latent_dim) * math.log(noise)
    distances = (along**2 / variances).sum(axis=1) + across / noise
    constant = features * math.log(2 * math.pi)
    return float(-0.5 * (constant + log_determinant + distances.mean()))
