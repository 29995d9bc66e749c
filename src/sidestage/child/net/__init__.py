"""Listening sockets, and the transport of one connection."""
