"""Both ends of each protocol, one folder a protocol."""
