"""The service as the outside sees it: real processes, real sockets, real databases."""
