"""Layers between socket and protocol that only the tests have: they change the case of letters.

A server's process loads them through ``Configure._layers``.
"""
