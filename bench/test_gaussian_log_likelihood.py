"""``gaussian_log_likelihood``: the decoder's log-density."""

from bench.conftest import Case, Report

NAMES = ("gaussian_log_likelihood",)


def test_gaussian_log_likelihood(report: Report, case: Case) -> None:
    report(case)
