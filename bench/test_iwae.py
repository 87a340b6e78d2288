"""The importance-weighted bound: samples, log-weights and the bound, 50 a row."""

from bench.conftest import Case, Report

NAMES = ("iwae",)


def test_iwae(report: Report, case: Case) -> None:
    report(case)
