"""The gRPC form of the Open Inference Protocol: its service as text, and what protoc makes of it."""
