"""The benchmarks' package, for tests: its folder comes last, so that the installed package is used.

Import this before ``bench``.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
