"""The KV cache and who owns its rows."""
