"""Load on an OpenAI-style server: requests, loops, figures, plot. Knows neither click nor Forklift's own routes."""
