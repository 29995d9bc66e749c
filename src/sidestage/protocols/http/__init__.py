"""HTTP/1.1: what users see of it; the child's end is in ``child``."""
