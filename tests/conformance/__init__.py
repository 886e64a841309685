"""The parts that the tests of all clients share: a service to start, and the testee commands."""
