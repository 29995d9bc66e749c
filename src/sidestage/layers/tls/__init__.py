"""TLS: the end in the test's process; the server's end is in ``child``."""
