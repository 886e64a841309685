"""Checks of what is under deploy/, with the tools that read it (`make check-deploy`)."""
