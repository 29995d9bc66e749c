"""One child process: launching it, talking to it, ending it, and what a fork does to it."""
