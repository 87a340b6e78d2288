"""``negative_elbo``: the loss, whose gradients the forward pass makes."""

from bench.conftest import Case, Report

NAMES = ("negative_elbo",)


def test_negative_elbo(report: Report, case: Case) -> None:
    report(case)
