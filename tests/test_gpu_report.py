"""What a check on a GPU found, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path

import bench_folder  # noqa: F401  (makes bench importable)
import made_up_results
import pytest

from bench import gpu_report, tables

KERNEL = "void vae_fast::device::(anonymous namespace)::noise_kernel<float, 4>(vae_fast::Fill)"
STAGE = {
    "op": "sample_kl",
    "size": "128x20",
    "replay_seconds": 2e-5,
    "stages": [["an empty Function", 9e-5, None], ["its kernels", 1.2e-4, 3e-5]],
    "kernels": [[KERNEL, 1, 2e-6], ["at::native::add<float>", 0, 1e-6]],
}


def check() -> dict:
    bandwidth = {"op": "noise", "direction": "forward", "dtype": "float32", "gb_per_s": 2997.0,
                 "shape": [65536, 4096], "of_copy": 0.701}  # fmt: skip
    ratio = {"op": "elbo", "size": "128x20+784", "seconds": {"vae_fast": [1e-4, 2e-4, 3e-4]},
             "ratios": {"eager": [3.0, 3.5, 4.0]}}  # fmt: skip
    return {
        "date": "2026-01-02",
        "machine": {
            "device": "Test GPU 9000", "capability": [9, 0], "processors": 132, "driver": "580",
            "memory_bytes": 2**34, "cuda": "13.0", "torch": "2.11", "triton": "3.6",
            "vae_fast": "0.1", "python": "3.12", "system": "Linux",
        },
        "installation": "complete",
        "tests": {"cuda": {"passed": 5, "failed": 1, "skipped": 2, "late": 3, "failures": ["x"]}},
        "figures": {
            "cuda": {"bandwidth": [bandwidth], "ratios": [ratio]},
            "triton": {"bandwidth": [], "ratios": []},
        },
        "stages": [STAGE | {"backend": "cuda"}, STAGE | {"backend": "triton"}],
        "suite": made_up_results.results(),
    }  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of a check that was kept."""
    results = tmp_path / "results"
    monkeypatch.setattr(gpu_report, "FOLDER", results)
    monkeypatch.setattr(gpu_report, "CHECKS", results / "gpu-check")
    (tmp_path / "gpu-check.json").write_text(json.dumps(check()))
    return gpu_report.keep(tmp_path)


def test_a_check_and_its_suite_are_kept_apart(kept: list[Path]) -> None:
    first, suite = (json.loads(path.read_text()) for path in kept)
    assert kept[0].name == "test-gpu-9000.json" and "suite" not in first
    assert suite == json.loads(json.dumps(made_up_results.results()))
    assert gpu_report.stored() == kept[:1]


def test_every_figure_is_shown(kept: list[Path]) -> None:
    shown = gpu_report.blocks(gpu_report.stored())
    assert "Test GPU 9000, compute capability 9.0" in shown["gpu-machine"]
    assert "| cuda | 5 | 1 | 2 | 3 |" in shown["gpu-tests"]
    assert (
        "| `noise` | forward | float32 | 65,536 × 4,096 | 2997 GB/s, **70%** | – |"
        in shown["gpu-bandwidth"]
    )
    assert "| `elbo` 128x20+784 | cuda | 200.0 µs | **3.50** |" in shown["gpu-ratios"]
    assert "| its kernels | 120.0 µs | 30.0 µs | 120.0 µs | 30.0 µs |" in shown["gpu-stages"]
    assert "| cuda | `noise_kernel` | 1 | 2.0 µs |" in shown["gpu-kernels"]
    assert "add" not in shown["gpu-kernels"]


def test_what_was_not_reached_is_said(tmp_path: Path) -> None:
    early = check()
    for part in ("tests", "figures", "stages", "suite"):
        del early[part]
    (tmp_path / "early.json").write_text(json.dumps(early))
    shown = gpu_report.blocks([tmp_path / "early.json"])
    for name in ("gpu-tests", "gpu-bandwidth", "gpu-ratios", "gpu-stages", "gpu-kernels"):
        assert tables.NOT_MEASURED in shown[name]
    assert set(gpu_report.blocks([]).values()) == {gpu_report.NOT_CHECKED}
