"""A KV cache in blocks: rows are tables of them."""
