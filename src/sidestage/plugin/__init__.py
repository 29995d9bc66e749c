"""What the pytest plugin does, a job a module; ``pytest_plugin`` is its door."""
