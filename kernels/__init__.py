"""Triton kernels, one module an op, installed as ``vae_fast.kernels``; this version has none."""
