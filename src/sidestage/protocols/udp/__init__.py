"""UDP: what users see of it; the child's end is in ``child``."""
