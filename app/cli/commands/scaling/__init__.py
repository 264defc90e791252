"""``forklift scale``: the application on several machines, as replicas of Ray Serve."""
