"""Benchmarks: the ops beside what people use instead, on the same work, with the limit beside it.

``python -m bench.run`` measures everything in some thirty minutes and writes
``bench/results/<machine>.json``, the tables of ``docs/performance.md``, which nobody types, and its
pictures. ``python -m bench.ratios`` measures only what there are targets for, in about five. Both
take names of ops and models, ``--device``, ``--backend`` and ``--quick``, which tries it all out.
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

How it is measured:

- Nothing is timed before its values and gradients agree with float64 (``parity.py``): a peer that
  does not is left out by name.
- Peers take turns, a block of calls each, in an order that rotates (``harness.py``): a busy machine
  slows all of them, and the ratio of two of them is taken round by round.
- The device is waited for inside each timed call. Compilation and warm-up come before, and
  compilation is reported by itself.
- Inputs larger than a core's own cache rotate among copies that the last-level cache cannot hold.
- Each peer has leaves of its own over the same memory, so that it frees its own gradients and not
  those of the peer before it.
- "forward" is evaluation, under ``torch.no_grad``; "backward" has its forward pass outside the
  timed part; "both" is what training does: ``.grad`` set to None, forward, backward into leaves.
- The limit is measured in the same run (``limit.py``): a Function that computes nothing, and a
  large copy, which takes its turn among the peers where memory is the limit.
- Peak memory is that of a process of its own (``memory.py``); calls are counted apart from the
  times (``counts.py``).
- Times vary and no test fails for them: the tables say which targets were reached.

A peer is a row of ``peers/__init__.py`` and a module beside it; one whose package is not installed
is skipped by name. ``pip install 'vae_fast[bench]'`` brings them all.
"""

import os

# Read when the compiler is imported. Its pool of processes would start up beside the first timings.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
