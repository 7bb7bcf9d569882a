"""Data: landing files are checked against their contract and become versions of a table."""
