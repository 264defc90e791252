"""What a model costs: accuracy per precision, memory, what fits. Each measurement runs in a process of its own."""
