"""``sample_kl`` with free bits, and what they cost."""

from bench.conftest import Case, Report

NAMES = ("free_bits_sample_kl",)


def test_free_bits_sample_kl(report: Report, case: Case) -> None:
    report(case)
