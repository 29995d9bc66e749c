"""A protocol that Sidestage does not have: each line of a client is answered with a line.

Its code is only here. A server's process loads it through ``Configure._outside``. Both processes
import it under the same name, so the modules import each other as those of a protocol's folder do.
"""
