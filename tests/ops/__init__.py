"""What the shared suites know of each op: a module of the op's name, with three functions.

``options(case, device, eps)``: what the public function is given beside the tensor arguments and
the backend; ``eps`` is the noise to use instead of the case's own.
``answer(case, arguments)``: its outputs in order, for float64 arguments; differentiable.
``terms(case, inputs, gradients)``: what each output, and the gradient of each argument, is summed
from, given the gradients that arrived for the outputs. All are float64.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType, ModuleType

from cases import ARGUMENTS

OPS: MappingProxyType[str, ModuleType] = MappingProxyType(
    {name: importlib.import_module(f"{__name__}.{name}") for name in ARGUMENTS}
)
