"""What a check on a GPU found, kept and shown."""

from __future__ import annotations

import json
from pathlib import Path

import bench_folder  # noqa: F401  (makes bench importable)
import made_up_results
import pytest

from bench import gpu_report, report

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
    suite = made_up_results.results()
    suite["machine"] |= {"accelerator": "Test GPU 9000", "backend": "cuda"}
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
        "suite": suite,
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
    assert suite == json.loads(json.dumps(check()["suite"]))
    assert kept[1].name == "test-gpu-9000-cuda.json"
    assert gpu_report.stored() == [first]


@pytest.fixture
def page(kept: list[Path], tmp_path: Path) -> str:
    """The page of that GPU's results."""
    (tmp_path / "docs" / "performance").mkdir(parents=True)
    (tmp_path / "docs" / "performance.md").write_text(
        "<!-- begin decides -->\n<!-- end decides -->\n"
    )
    return report.write(kept[1:], tmp_path / "docs")[0].read_text()


def test_every_figure_is_shown(page: str) -> None:
    assert "Test GPU 9000, compute capability 9.0" in page
    assert "| cuda | 5 | 1 | 2 | 3 |" in page
    assert "| `noise` | forward | float32 | 65,536 × 4,096 | 2997 GB/s, **70%** | – |" in page
    assert "| `elbo` 128x20+784 | cuda | 200.0 µs | **3.50** |" in page
    assert "| its kernels | 120.0 µs | 30.0 µs | 120.0 µs | 30.0 µs |" in page
    assert "| cuda | `noise_kernel` | 1 | 2.0 µs |" in page and "`add`" not in page
    assert "Not measured" not in page


def test_what_was_not_reached_is_said() -> None:
    early = check()
    for part in ("tests", "figures", "stages"):
        del early[part]
    titles = [section.title for section in gpu_report.SECTIONS]
    assert len(titles) == 5
    for of_gpu in (early, {}):  # checked in part, and not at all
        made = report.page(check()["suite"], Path("x"), of_gpu, {})
        assert f"Not measured on this machine: {'; '.join(titles)}.\n" in made
