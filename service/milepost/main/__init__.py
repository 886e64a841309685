"""The composition root: it builds all parts of the service and connects them.

``serving.py`` starts and stops the service; the modules beside it build the parts of one capability
each. ``migration.py``, ``cleanup.py``, ``api_keys.py``, ``master_keys.py`` and ``checks.py`` have
the database commands of the command line. Each is imported by its command alone, because all parts
of the service take much longer to import than such a command takes.
"""
