"""One server's life, whoever serves."""
