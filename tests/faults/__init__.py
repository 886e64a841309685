"""Behaviour under races, crashes and outages. The large sizes run with `make faults`."""
