"""From an event of the child to the handler's answer."""
