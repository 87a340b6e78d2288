"""Training from the command line: what `vae-fast train`, `evaluate` and `sample` do.

Needs the `train` extra. Nothing here is imported by `import vae_fast`.
"""
