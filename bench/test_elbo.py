"""``elbo``: both ops of a loss, without the networks around them."""

from bench.conftest import Case, Report

NAMES = ("elbo",)


def test_elbo(report: Report, case: Case) -> None:
    report(case)
