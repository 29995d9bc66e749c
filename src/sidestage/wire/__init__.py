"""What parent and child both know: the messages, their frames, and the channel over two pipes."""
