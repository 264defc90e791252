"""From a name to a model in memory: where its files lie, which device it gets, how it is loaded and let go."""
