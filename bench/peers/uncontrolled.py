"""Our own ``sample_kl`` without free bits: what having them costs."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

import vae_fast.functional as F
from bench.device import Setting
from bench.peers import Function


def functions(setting: Setting) -> Mapping[str, Function]:
    def sample_kl(mean: Tensor, logvar: Tensor) -> tuple[Tensor, ...]:
        return F.sample_kl(mean, logvar, backend=setting.backend)

    return {"free_bits_sample_kl": sample_kl}
