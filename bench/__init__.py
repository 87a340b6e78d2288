"""Benchmarks: the ``cpu`` backend beside eager PyTorch and ``torch.compile``, on the same work.

``pytest bench/ --benchmark-only`` times every op, the whole ELBO and a whole training step:
forward, backward and both. It prints a table a group (one op, size, direction and number of
threads), with the peers as its rows. ``--benchmark-disable`` only compares the results with
float64; ``--threads 1`` takes another number of threads than all cores, ``--measure 2`` more
seconds a group; and ``-k`` picks as ever: ``-k "sample_kl and 4096x128 and both"``.

``python -m bench.ratios`` times what there are targets for, on all cores and on one, and writes
``bench/results/<machine>.json`` and the tables of ``docs/performance.md``, which nobody types.
``python -m bench.report`` writes the tables again from that file. ``--quick`` tries it all out.

How it is measured:

- Nothing is timed before its values and gradients agree with float64 (``parity.py``).
- Peers take turns, a block of calls each, in an order that rotates (``harness.py``): a busy machine
  slows all of them, and the ratio of two of them is taken round by round.
- Compilation and warm-up come before, and compilation is reported by itself.
- Inputs larger than a core's own cache rotate among copies that the last-level cache cannot hold.
- "forward" is evaluation, under ``torch.no_grad``; "backward" has its forward pass outside the
  timed part; "both" is what training does: ``.grad`` set to None, forward, backward into leaves.
- Times vary and no test fails for them: the tables say which targets were reached.
"""

import os

# Read when the compiler is imported. Its pool of processes would start up beside the first timings.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
