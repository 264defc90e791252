"""Checks of what an extra brings: the gRPC port, the registry, this machine's part of a cluster."""
