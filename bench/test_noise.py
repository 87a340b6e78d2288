"""``noise``: beside ``torch.randn_like``."""

from bench.conftest import Case, Report

NAMES = ("noise",)


def test_noise(report: Report, case: Case) -> None:
    report(case)
