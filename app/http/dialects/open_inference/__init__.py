"""The Open Inference Protocol, version 2: named tensors in and out, for embeddings and masks."""
