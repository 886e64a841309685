"""The API, whatever carries it: messages in, use cases, messages out."""
