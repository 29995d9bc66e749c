"""What no test can patch: system calls, waits, late imports."""
