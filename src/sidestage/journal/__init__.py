"""What came and what went wrong, in order."""
