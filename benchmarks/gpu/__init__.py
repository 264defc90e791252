"""The benchmark for a machine with a GPU: ``python -m benchmarks.gpu``, described in docs/gpu.md.

``carry`` and the start of ``run`` need nothing but Python: the machine has torch, transformers and
accelerate, and perhaps no network.
"""
