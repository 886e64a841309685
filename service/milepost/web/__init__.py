"""The HTTP port: probes and metrics."""
