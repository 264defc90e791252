"""Forward passes over the KV cache."""
