"""GGUF files, told from their headers alone: what one holds, and whether it can be a model that is served."""
