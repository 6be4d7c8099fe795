"""One visible loop, and what it is given."""
