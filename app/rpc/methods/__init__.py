"""What the gRPC methods mean: from a message to the body of a route, and from its answer to messages."""
