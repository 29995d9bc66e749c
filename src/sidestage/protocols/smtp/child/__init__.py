"""SMTP in the server's process."""
