"""One call at one of many servers, over HTTP or over gRPC."""
