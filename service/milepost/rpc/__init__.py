"""The gRPC side: messages in, use cases, messages out."""
