"""LoRA adapters as models of their own: found by name, put into service and taken out of it."""
