"""The gRPC protocol that client and server share: the text of the service, and what protoc makes of it."""
