"""Benchmarks: the ops beside what people use instead, on the same work, and beside a large copy.

``python -m bench.run`` measures everything in some thirty minutes and writes
``bench/results/<machine>.json``, and from it the pages and pictures in ``docs/``, which nobody
types. ``python -m bench.ratios`` measures only what there are targets for, in about five. Both take
names of ops and models, ``--device``, ``--backend`` and ``--quick``, which tries it all out.
``python -m bench.report [FILES]`` writes tables and pictures again; ``python bench/compare.py OLD
NEW`` says what got slower beyond the spread. ``python -m bench.stages`` takes a small call apart,
and ``python -m bench.launch_path`` and ``bench.triton_launch_path`` time what the CUDA and the
Triton backend do before their launches, without a GPU.

``pytest bench/ --benchmark-only`` prints a table a group (one op, size, direction and number of
threads), with the peers as its rows: forward, backward and both, and training steps.
``--benchmark-disable`` only compares the results with float64; ``--curves`` takes sizes from 2^10
elements up, ``--dtype bfloat16``, ``--device cuda``, ``--threads 1`` and ``--measure 2`` (seconds a
group) what they say, ``--quick`` the smallest size; and ``-k`` picks as ever: ``-k "sample_kl and
4096x128 and both"``.

``docs/performance/method.md`` says how it is measured. Times vary and no test fails for them: the
tables say which targets were reached.

A peer is a row of ``peers/__init__.py`` and a module beside it; one whose package is not installed
is skipped by name. ``pip install 'vae_fast[bench]'`` brings them all.
"""

import os

# Read when the compiler is imported. Its pool of processes would start up beside the first timings.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
