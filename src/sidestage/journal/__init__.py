"""What a server received and what went wrong, in order."""
