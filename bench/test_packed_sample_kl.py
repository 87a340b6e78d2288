"""``packed_sample_kl``: the same of one tensor, as an autoencoder of images gives it."""

from bench.conftest import Case, Report

NAMES = ("packed_sample_kl",)


def test_packed_sample_kl(report: Report, case: Case) -> None:
    report(case)
