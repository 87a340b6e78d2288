"""Training steps of whole models, beside the same networks on plain ops and in other libraries."""

from bench.conftest import Case, Report
from bench.models import MODELS

NAMES = tuple(MODELS)


def test_training_step(report: Report, case: Case) -> None:
    report(case)
