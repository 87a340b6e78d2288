"""``gaussian_kl``: the KL divergence alone."""

from bench.conftest import Case, Report

NAMES = ("gaussian_kl",)


def test_gaussian_kl(report: Report, case: Case) -> None:
    report(case)
