"""What both processes know: the messages, their frames, and flow control."""
