"""Triton kernels, one module an op. Installed as ``vae_fast.kernels``; this version has none yet."""
