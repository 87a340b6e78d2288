"""``sample_kl``: the sample and its KL divergence."""

from bench.conftest import Case, Report

NAMES = ("sample_kl",)


def test_sample_kl(report: Report, case: Case) -> None:
    report(case)
