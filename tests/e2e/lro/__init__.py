"""The stock clients of google.longrunning against a running service."""
