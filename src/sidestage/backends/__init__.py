"""Where a server runs: what it must be able to do, and the child of ours that does it."""
