"""Triton kernels, one module an op, installed as ``vae_fast.kernels``.

``gaussian.py`` states the formulas, ``math.py`` and ``random.py`` what they are made from,
``tile.py`` how elements are found, loaded and stored, ``finish.py`` the second step of a sum, and
``launch.py`` how a call is divided. Importing one of these imports triton.

``[*batch, *event]`` becomes ``[N, D]``: N rows of D elements. In kernels ``p_`` is a pointer,
``b_`` a block of values, ``m_`` a mask.
"""
