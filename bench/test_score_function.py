"""The score-function gradient of 50 samples a row."""

from bench.conftest import Case, Report

NAMES = ("score_function",)


def test_score_function(report: Report, case: Case) -> None:
    report(case)
