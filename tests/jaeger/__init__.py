"""A real Jaeger, which `make` builds where Go is, and the answers of its query API.

``MILEPOST_TEST_JAEGER=1`` makes its absence a failure. The header of a run says whether it is
there.
"""
