"""``unit_negative_elbo``: the loss of a decoder with the variance 1."""

from bench.conftest import Case, Report

NAMES = ("unit_negative_elbo",)


def test_unit_negative_elbo(report: Report, case: Case) -> None:
    report(case)
