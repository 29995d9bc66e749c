"""What a test expects of its clients: declared here, chosen and counted in the child."""
