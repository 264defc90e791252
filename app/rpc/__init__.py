"""The gRPC door of a worker: calls become the requests that HTTP has, and errors its statuses."""
