"""What a value is to be: written in the test's process, judged in either."""
