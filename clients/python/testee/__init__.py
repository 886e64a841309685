"""The testee of the Python client: performs the commands of ``tests/conformance/README.md``."""
