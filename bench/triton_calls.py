"""Calls of the Triton backend's functions without a GPU: kernels are compiled, not launched."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bench import triton_variants
from bench.triton_variants import CALLS, Variant

# By their module in ``vae_fast.kernels``.
OPS = {
    "sample_kl": ("sample_kl_forward", "sample_kl_backward"),
    "gaussian_kl": ("gaussian_kl_forward", "gaussian_kl_backward"),
    "gaussian_log_likelihood": (
        "gaussian_log_likelihood_forward", "gaussian_log_likelihood_backward",
        "squared_error_forward",
    ),
    "negative_elbo": ("negative_elbo_forward", "gaussian_log_likelihood_backward"),
    "sample_log_weights": ("sample_log_weights_forward", "sample_log_weights_backward"),
    "importance_weighted_elbo": ("importance_weighted_elbo_forward",),
    "score_function": ("score_function_backward",),
    "noise": ("noise",),
    "scale": ("scale_",),
}  # fmt: skip


class Call(NamedTuple):
    name: str
    op: Callable[..., Any]
    arguments: tuple[Any, ...]


class Launcher:
    """In place of Triton's own, with its arguments: grid, stream, function, metadata, hooks, and
    then the kernel's."""

    def __init__(self, _source: Any, _metadata: Any) -> None:
        pass

    def __call__(self, *given: Any) -> None:
        pass


class _Utilities:
    @staticmethod
    def load_binary(*_: Any) -> tuple[int, ...]:
        return 1, 1, 32, 0, 1024  # module, function, registers, spills, threads

    @staticmethod
    def get_device_properties(_device: int) -> dict[str, int]:
        return {"max_shared_mem": 2**17}


class Driver(triton_variants.Driver):
    """Launches nothing. It stays active: the process has no GPU."""

    utils = _Utilities()

    def __init__(self, name: str, launcher: type = Launcher) -> None:
        super().__init__(name)
        self.launcher_cls = launcher

    def activate(self) -> None:
        from triton.runtime.driver import driver

        driver.set_active(self)


def calls_of(variants: Iterable[Variant]) -> list[Call]:
    """What the variants call, and with what, in order; under an active ``Driver``."""
    import vae_fast._backends.triton  # noqa: F401  # so that vae_fast.kernels is found
    from vae_fast.kernels import replay

    found: list[Call] = []
    modules = {name: importlib.import_module(f"vae_fast.kernels.{name}") for name in OPS}
    originals = {(m, name): getattr(modules[m], name) for m, names in OPS.items() for name in names}

    def noted(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            found.append(Call(name, op, arguments))
            return op(*arguments)

        return call

    try:
        for (module, name), op in originals.items():
            setattr(modules[module], name, noted(name, op))
        with replay.disabled():
            for variant in variants:
                CALLS[variant.op](variant)
    finally:
        for (module, name), op in originals.items():
            setattr(modules[module], name, op)
    return found
