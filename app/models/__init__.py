"""Models: device, loading, tokenizing, prompts. Run by the inference thread; torch is imported there."""
