"""One process, from its launch to its end."""
