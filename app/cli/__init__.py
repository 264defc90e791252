"""The ``forklift`` program. Knows neither Flask nor torch: it starts what does."""
