"""TLS in the server's process."""
