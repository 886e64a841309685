"""What callers and workers want done: one method a verb, in the words of the protos."""
