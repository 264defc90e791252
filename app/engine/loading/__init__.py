"""Models of a worker: handles that requests lease, the pool that loads and unloads, the memory that this takes."""
