"""HTTP/1.1 in the server's process."""
