"""LoRA adapters: what is small and changes beside weights that stay; many at once on one model."""
