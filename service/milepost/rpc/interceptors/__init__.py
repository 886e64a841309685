"""Interceptors of every RPC, in one order for unary calls and streams."""
