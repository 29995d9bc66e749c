"""What runs in the server's process and nowhere else."""
