"""From a GGUF file to a model: its form here, its config, its blocks."""
