"""The service behind real proxies with the files of ``deploy``."""
