"""Which requests an expectation is of: both processes judge it. No I/O here."""
