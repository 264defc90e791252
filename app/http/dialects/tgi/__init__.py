"""text-generation-inference's API: bodies, answers, routes."""
