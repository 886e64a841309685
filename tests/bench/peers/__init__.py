"""Usual implementations of the same service on the same table, as peers to compare with.

They do less than the service: no authentication, no limits, no event rows, no traces.
"""
