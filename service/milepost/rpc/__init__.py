"""The gRPC server around the API."""
