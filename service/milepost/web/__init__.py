"""The HTTP side: probes and metrics."""
