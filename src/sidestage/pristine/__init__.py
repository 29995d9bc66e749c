"""System calls, waits and late imports, out of reach of what a test patches."""
