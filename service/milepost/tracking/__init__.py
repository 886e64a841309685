"""The use cases of callers, workers and admins, in the words of the protos."""
