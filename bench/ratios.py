"""Times what there are targets for, and more of the same; about five minutes of a quiet machine.

``python -m bench.ratios`` prints which targets were reached; ``--out FILE`` keeps the results, for
``bench.compare``. The tables are those of the whole run, ``bench.run``.
"""

from __future__ import annotations

from bench import run
from bench.targets import TARGETS

NAMES = tuple(dict.fromkeys(target.op for target in TARGETS))

if __name__ == "__main__":
    run.main("python -m bench.ratios", __doc__, ("comparisons", "noise"), NAMES, keep=False)
