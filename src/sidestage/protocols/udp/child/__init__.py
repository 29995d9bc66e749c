"""UDP in the server's process."""
