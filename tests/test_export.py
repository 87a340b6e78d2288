"""Programs that leave Python: torch.export, ONNX and AOTInductor."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check
import pytest
import torch
from cases import ARGUMENTS, Case, priors, tensors
from conftest import Backend
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import vae_fast.functional as F
from vae_fast import FusedVAE
from vae_fast.errors import BackendUnavailableError
from vae_fast.objectives import ELBO

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning",
    "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning",  # torch's own
)
ROWS = Dim("rows", min=2, max=4096)


def case_of(op: str) -> Case:
    if op == "importance_weighted_elbo":
        return Case(op, (5,), num_samples=3)
    return Case(op, (5, 7), **priors(op))


class Op(nn.Module):
    """The op of a case, a module of the tensors that the case gives it."""

    def __init__(self, case: Case, backend: str | None) -> None:
        super().__init__()
        self.case, self.backend = case, backend
        self.names = [name for name, tensor in tensors(case).items() if tensor is not None]

    def example(self, rows: int = 5) -> list[Tensor]:
        return [
            torch.randn((rows, *t.shape[1:]) if self.rows_first else (t.shape[0], rows))
            for t in tensors(self.case).values()
            if t is not None
        ]

    @property
    def rows_first(self) -> bool:
        return self.case.op != "importance_weighted_elbo"

    def forward(self, given: list[Tensor]) -> tuple[Tensor, ...]:
        named = dict.fromkeys(ARGUMENTS[self.case.op]) | dict(zip(self.names, given, strict=True))
        return tuple(check.call(self.case, named, self.backend).values())


class Method(nn.Module):
    """A model's method as a module, since only a ``forward`` can be exported."""

    def __init__(self, model: FusedVAE, name: str) -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, *given: Tensor) -> Any:
        return getattr(self.model, self.name)(*given)


class Outputs(nn.Module):
    """A model's outputs as a plain tuple."""

    def __init__(self, model: FusedVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, seed: Tensor | None = None) -> tuple[Tensor, ...]:
        out = self.model(x, seed=seed)
        return out.loss, out.z, out.elbo, out.mean


class Drawn(nn.Module):
    """A sample from a generator's seed."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return F.sample_kl(x, x, generator=self.generator)[0]


class Noise(nn.Module):
    def forward(self, x: Tensor, seed: Tensor) -> Tensor:
        return F.noise(x.shape, seed=seed, num_samples=2, dtype=x.dtype, device=x.device)


def vae(backend: str | None = None, **options: Any) -> FusedVAE:
    torch.manual_seed(0)
    return FusedVAE(12, 3, (8,), backend=backend, **options)


def rows_of(method: str, rows: int) -> Tensor:
    return torch.randn(rows, 3 if method == "decode" else 12)


def ops_in(program: ExportedProgram) -> set[str]:
    """The package's ops that the program calls."""
    calls = (str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return {call.split(".")[1] for call in calls if call.startswith("vae_fast")}


def reloaded(program: ExportedProgram) -> nn.Module:
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


def assert_same(got: Callable, want: Callable, *inputs: Any) -> None:
    made = []
    for function in (got, want):
        torch.manual_seed(4)
        made.append(function(*inputs))
    torch.testing.assert_close(*made, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", [None, "cpu"])
@pytest.mark.parametrize("op", ARGUMENTS)
def test_each_op(op: str, backend: str | None, compiled_backend: Backend) -> None:
    """With any number of rows. It is plain PyTorch, unless a compiled backend was named."""
    module = Op(case_of(op), backend)
    example = module.example()
    shapes = ([{0 if module.rows_first else 1: ROWS}] * len(example),)
    program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    assert ops_in(program) == (set() if backend is None else {op})
    again = reloaded(program)
    for rows in (2, 9):
        assert_same(again, module, module.example(rows))


@pytest.mark.parametrize("op", ARGUMENTS)
def test_each_op_strictly(op: str) -> None:
    module = Op(case_of(op), None)
    program = torch.export.export(module, (module.example(),), strict=True)
    assert not ops_in(program)
    assert_same(program.module(), module, module.example())


def test_noise() -> None:
    example = torch.zeros(5, 7), torch.tensor(3)
    program = torch.export.export(Noise(), example)
    assert not ops_in(program)
    assert_same(reloaded(program), Noise(), torch.zeros(5, 7), torch.tensor(-8))


@pytest.mark.parametrize("backend", [None, "cpu"])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("seeded", [False, True])
def test_the_model(
    seeded: bool, strict: bool, backend: str | None, compiled_backend: Backend
) -> None:
    """It returns what the model does. Without a seed each call draws what eager code would."""
    model = vae(backend)
    given = (torch.tensor(3),) if seeded else ()
    shapes = {"x": {0: ROWS}} | ({"seed": None} if seeded else {})
    program = torch.export.export(
        model, (torch.randn(5, 12), *given), dynamic_shapes=shapes, strict=strict
    )
    assert ops_in(program) == (set() if backend is None else {"sample_kl", "negative_elbo"})
    again = reloaded(program)
    x = torch.randn(9, 12)
    given = (torch.tensor(-7),) if seeded else ()
    assert_same(again, model, x, *given)
    assert torch.equal(again(x, *given).z, again(x, *given).z) == seeded


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("method", ["encode", "decode", "reconstruct"])
def test_methods_of_the_model(method: str, strict: bool) -> None:
    module = Method(vae(), method)
    example = (rows_of(method, 5),)
    program = torch.export.export(module, example, dynamic_shapes=(({0: ROWS},),), strict=strict)
    assert not ops_in(program)
    assert_same(reloaded(program), module, rows_of(method, 9))


@pytest.mark.parametrize("baseline", ["leave_one_out", "running_mean"])
def test_a_program_can_be_trained(baseline: str) -> None:
    """Its gradients are those of the model, and what the model learns to know is in its state."""
    objective = ELBO(num_samples=2, estimator="score_function", baseline=baseline)
    model, x, seed = vae(objective=objective), torch.randn(5, 12), torch.tensor(3)
    program = torch.export.export(copy.deepcopy(model), (x, seed))
    assert not ops_in(program)
    exported = program.module()
    for _ in range(2):  # the second takes the mean of the first
        made = []
        for each in (exported, model):
            leaves = dict(each.named_parameters())
            loss = each(x, seed).loss
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            made.append((loss.detach(), dict(zip(leaves, gradients, strict=True))))
        torch.testing.assert_close(*made, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("case", [
    *map(case_of, ARGUMENTS),
    Case("sample_log_weights", (5, 7), num_samples=2, estimator="stl"),
    Case("sample_log_weights", (5, 7), num_samples=2, estimator="dreg"),
], ids=str)  # fmt: skip
def test_a_program_of_a_named_backend_has_gradients(
    case: Case, decomposed: bool, compiled_backend: Backend
) -> None:
    """They are eager code's, also where the program has been taken down to PyTorch's core ops."""
    module = Op(case, compiled_backend.name)
    program = torch.export.export(module, (module.example(),))
    exported = (program.run_decompositions() if decomposed else program).module()
    given, made = module.example(), []
    for each in (exported, module):
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        outputs = [t for t in each(leaves) if t.requires_grad]
        weights = [torch.arange(1.0, 1 + t.numel()).view(t.shape) for t in outputs]
        gradients = torch.autograd.grad(outputs, leaves, weights, allow_unused=True)
        assert outputs and any(g is not None for g in gradients)
        made.append(gradients)
    torch.testing.assert_close(*made, rtol=1e-5, atol=1e-5)


def test_a_program_of_a_named_backend_under_transforms(compiled_backend: Backend) -> None:
    module = Op(case_of("gaussian_kl"), compiled_backend.name)
    program = torch.export.export(module, (module.example(),)).module()
    with pytest.raises(BackendUnavailableError, match="cannot run under torch"):
        torch.func.grad(lambda given: program(given)[0].sum())(module.example())


@pytest.mark.parametrize("strict", [False, True])
def test_what_a_program_cannot_hold_is_refused(strict: bool) -> None:
    """The weights of a gradient, which stand in Python, and a generator, which has a state."""
    module = Op(Case("sample_log_weights", (5, 7), num_samples=2, estimator="dreg"), None)
    with pytest.raises(Exception, match='estimator="dreg" cannot be exported'):
        torch.export.export(module, (module.example(),), strict=strict)
    with pytest.raises(Exception, match="generator must be None where a program is recorded"):
        torch.export.export(Drawn(torch.Generator()), (torch.zeros(5, 7),), strict=strict)


def onnx_session(module: nn.Module, *example: Tensor, **options: Any) -> Callable:
    """The module in ONNX, checked, as a function of tensors."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(module.eval(), example, dynamo=True, verbose=False, **options)
    model = program.model_proto
    onnx.checker.check_model(model, full_check=True)
    session = runtime.InferenceSession(model.SerializeToString())
    names = [given.name for given in session.get_inputs()]

    def run(*given: Tensor) -> list[Tensor]:
        arrays = (tensor.numpy() for tensor in given)
        return [
            torch.as_tensor(array)
            for array in session.run(None, dict(zip(names, arrays, strict=True)))
        ]

    return run


@pytest.mark.parametrize("method", ["encode", "decode", "reconstruct"])
def test_methods_in_onnx(method: str) -> None:
    module = Method(vae(), method)
    run = onnx_session(module, rows_of(method, 5), dynamic_shapes=(({0: ROWS},),))
    x = rows_of(method, 9)
    want = module(x)
    for got, each in zip(run(x), want if isinstance(want, tuple) else (want,), strict=True):
        torch.testing.assert_close(got, each.detach(), rtol=1e-5, atol=1e-5)


def test_a_seeded_model_in_onnx() -> None:
    """The noise is the seed's, within 4e-6 of what other backends make of it."""
    module = Outputs(vae())
    run = onnx_session(module, torch.randn(5, 12), torch.tensor(3))
    x = torch.randn(5, 12)
    for seed in (3, -1, 1 << 62, -(1 << 63)):
        given = x, torch.tensor(seed)
        for got, want in zip(run(*given), module(*given), strict=True):
            torch.testing.assert_close(got, want.detach(), rtol=1e-5, atol=2e-5)


def test_an_unseeded_model_in_onnx() -> None:
    """Each run draws a seed."""
    run = onnx_session(Outputs(vae()), torch.randn(5, 12))
    x = torch.randn(5, 12)
    (_, first, *_), (_, second, *_) = run(x), run(x)
    assert first.isfinite().all() and not torch.equal(first, second)


def test_a_compiled_backend_is_refused_by_onnx(compiled_backend: Backend) -> None:
    with pytest.raises(Exception, match=r"No ONNX function found for .*vae_fast"):
        onnx_session(Outputs(vae(compiled_backend.name)), torch.randn(5, 12), torch.tensor(3))


class Several(nn.Module):
    """Ops of a compiled backend, and a model of plain PyTorch."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.ops = nn.ModuleList(Op(case_of(op), backend) for op in ARGUMENTS)
        self.model = Outputs(vae())

    def forward(self, given: list[list[Tensor]], x: Tensor, seed: Tensor) -> list[Tensor]:
        made = [t for op, each in zip(self.ops, given, strict=True) for t in op(each)]
        return [*made, *self.model(x, seed)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_a_package(compiled_backend: Backend, tmp_path: Path) -> None:
    """AOTInductor compiles, loads and runs them, in one package: compiling takes long."""
    module = Several(compiled_backend.name)

    def inputs(seed: int) -> tuple[Any, ...]:
        return [op.example() for op in module.ops], torch.randn(5, 12), torch.tensor(seed)

    with torch.no_grad():
        program = torch.export.export(module, inputs(3))
        path = str(tmp_path / "several.pt2")
        torch._inductor.aoti_compile_and_package(program, package_path=path)
        package = torch._inductor.aoti_load_package(path)
        for seed in (3, -7):
            given = inputs(seed)
            torch.testing.assert_close(package(*given), module(*given), rtol=1e-5, atol=1e-5)
