"""One request to one server, and its answer, bounded in time and size."""
