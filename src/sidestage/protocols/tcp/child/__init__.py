"""TCP in the server's process."""
