"""The inference thread of a worker: what reaches it, its loop, the clocks by which it is watched."""
