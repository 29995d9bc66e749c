"""What a server tells about itself, as text for people."""
