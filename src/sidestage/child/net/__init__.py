"""Between a socket and a protocol: listeners and the transport of one connection."""
