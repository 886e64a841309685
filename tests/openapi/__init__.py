"""The API over HTTP against its own description. `make test-http` runs these tests."""
