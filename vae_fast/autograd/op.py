"""What an op is to autograd, to the dispatcher and to the backends, described once.

In eager mode an op is a ``torch.autograd.Function`` around a backend's functions, outside the
dispatcher, which would cost more than a small kernel. Someone who traces or wraps a call (the
compiler, dispatch modes, tensor subclasses, fake tensors among them) gets ``vae_fast::<name>``
instead, whose derivative is the same Function around the same backend (``dispatched.py``).
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from vae_fast import _backends, _seed
from vae_fast._backends import SEEN_THROUGH, reference
from vae_fast._backends.reference import compute_dtype
from vae_fast.autograd import apply_of, gradients, is_watched
from vae_fast.autograd.dispatched import Dispatched, names_of, register_backward, register_forward
from vae_fast.autograd.noise import draw_seed

Inputs = tuple[Any, ...]  # tensors, and None for those that are not given
Options = tuple[Any, ...]

GAUSSIAN = ("mean", "logvar", "prior_mean", "prior_logvar")
GAUSSIAN_INPUTS = "Tensor mean, Tensor logvar, Tensor? prior_mean, Tensor? prior_logvar"
# Of an op that draws noise the last input is eps, and the first option the seed.
NOISE = "Tensor? seed, SymInt? num_samples, int event_dims, SymInt row_offset"


class _Function(torch.autograd.Function):
    """Of every op."""

    @staticmethod
    def forward(
        ctx: Any,
        op: Op,
        options: Options,
        backend: ModuleType | Dispatched,
        *inputs: Tensor | None,
    ) -> Any:
        ctx.call = op, backend, options
        if op.several:  # a single gradient arrives anyway, as zeros if need be
            ctx.set_materialize_grads(False)
        return op.run(ctx, backend, inputs, options)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        op, backend, options = ctx.call
        return None, None, None, *op.gradients(ctx, backend, options, upstream)


FIRST = 3  # place of the inputs among the Function's arguments
_apply = apply_of(_Function)


class Op:
    """One op. A subclass describes it, says what is unlike the others, and is made once.

    ``call`` takes a backend's name, the op's inputs and its options.
    """

    name: str
    # Schemas. A backend's ``<name>_forward`` takes inputs and options; ``<name>_backward`` what
    # arrives from above, inputs, and the options but for the last ``forward_only``; or, where it is
    # unlike that, ``backward_arguments``; and then which gradients of ``learned`` are needed.
    inputs: str
    options = ""
    returns = "Tensor"  # Tensor[] where one that was not asked for is missing
    upstream = ""
    learned: tuple[str, ...] = GAUSSIAN  # one behind another
    forward_only = 0
    backward_arguments: str | None = None

    def __init__(self) -> None:
        names, options = names_of(self.inputs), names_of(self.options)
        self._names = (*names, *options)
        self.several = self.returns != "Tensor"
        self._count, self._kept = len(names), len(options) - self.forward_only
        first = names.index(self.learned[0])
        self._arriving = len(names_of(self.upstream))
        self._before = (None,) * first
        self._behind = (None,) * (len(names) - first - len(self.learned))
        self._needs = slice(FIRST + first, FIRST + first + len(self.learned))
        self._mean = names.index("mean") if "mean" in names else 0
        self._event_dims = options.index("event_dims") if "logvar" in self.learned else None
        self._forward, self._backward = f"{self.name}_forward", f"{self.name}_backward"
        self.op = register_forward(
            self.name,
            _joined(self.inputs, self.options),
            self.returns,
            self._applied,
            self._fake,
            self.forward,
        )
        schema = self.backward_arguments
        if self.upstream:
            kept = self.options.split(", ")[: self._kept]
            schema = _joined(self.upstream, self.inputs, *kept)
        if schema is not None:
            register_backward(self._backward, schema, self.learned)

    # What an op may say otherwise.

    def shapes(self, call: Any) -> Any:
        """New tensors of the shapes and dtypes of what is returned; ``call`` has the arguments, by
        their names."""
        raise NotImplementedError

    def forward(self, backend: Any, *arguments: Any) -> Any:
        """What is returned, computed by a backend from inputs and options."""
        return getattr(backend, self._forward)(*arguments)

    def composed(self, inputs: Inputs, options: Options) -> Any:
        """The same in plain PyTorch, which autograd differentiates by itself."""
        return self.forward(reference, *inputs, *options)

    def run(self, ctx: Any, backend: Any, inputs: Inputs, options: Options) -> Any:
        """The Function's forward pass, which keeps what the backward pass needs."""
        ctx.save_for_backward(*inputs)
        return getattr(backend, self._forward)(*inputs, *options)

    def gradients(
        self, ctx: Any, backend: Any, options: Options, upstream: tuple[Tensor | None, ...]
    ) -> tuple[Any, ...]:
        """The Function's backward pass: the gradient of each input."""
        if len(upstream) < self._arriving:  # a tensor that was not asked for has been left out
            upstream = (*upstream, *(None,) * (self._arriving - len(upstream)))
        made = gradients(
            backend, self._backward, upstream, ctx.saved_tensors,
            options[: self._kept] if self.forward_only else options,
            ctx.needs_input_grad[self._needs],
            None if self._event_dims is None else options[self._event_dims], self._mean,
        )  # fmt: skip
        return *self._before, *made, *self._behind

    # What is the same for all.

    def call(self, backend: str, inputs: Inputs, options: Options = ()) -> Any:
        """The op on the backend of that name; COMPOSED is one."""
        if is_watched(backend, inputs):
            if backend in SEEN_THROUGH:
                return self.composed(inputs, options)
            return self.op(*inputs, *options, backend)
        return self.apply(options, _backends.get(backend), inputs)

    def apply(self, options: Options, backend: ModuleType | Dispatched, inputs: Inputs) -> Any:
        """The Function, applied."""
        try:
            return _apply(self, options, backend, *inputs)
        except RuntimeError:  # a tensor of inference mode cannot be saved; its copy can
            copied = [t if t is None or not t.is_inference() else t.clone() for t in inputs]
            if all(a is b for a, b in zip(inputs, copied, strict=True)):
                raise
        return _apply(self, options, backend, *copied)

    def _fake(self, *arguments: Any) -> Any:
        return self.shapes(SimpleNamespace(**dict(zip(self._names, arguments, strict=False))))

    def _applied(self, *arguments: Any) -> Any:
        *given, backend = arguments
        made = self.apply(tuple(given[self._count :]), backend, tuple(given[: self._count]))
        return [t for t in made if t is not None] if self.returns == "Tensor[]" else made


class NoisyOp(Op):
    """An op that draws noise, from a seed that it draws where none is given."""

    def draw_and_call(
        self,
        backend: str,
        inputs: Inputs,
        seed: int | Tensor | None,
        options: Options,  # behind the seed
        generator: torch.Generator | None = None,
    ) -> Any:
        """``call`` with this seed; one from the generator where there is neither it nor eps."""
        watched = is_watched(backend, (*inputs, seed) if isinstance(seed, Tensor) else inputs)
        drawn = seed is None and inputs[-1] is None  # for this call: nobody else has it
        if drawn:
            seed = draw_seed(inputs[self._mean], generator, watched)
        if watched:
            if backend in SEEN_THROUGH:
                return self.composed(inputs, (seed, *options))
            seed = _seed.kept_tensor(seed, inputs[self._mean].device, drawn)
            return self.op(*inputs, seed, *options, backend)
        if not drawn:
            seed = _seed.kept(seed)
        return self.apply((seed, *options), _backends.get(backend), inputs)


def of_rows(call: Any, mean: Tensor, *beside: Tensor | None) -> Tensor:
    """A value for each row of ``mean``, in the type that is computed in."""
    rows = mean.shape[: mean.dim() - call.event_dims]
    return mean.new_empty(rows, dtype=compute_dtype(mean, *beside))


def _joined(*schemas: str) -> str:
    return ", ".join(filter(None, schemas))
