"""Layers between a stream and its protocol, one folder a layer."""
