"""Tuning records, as data; see README.md."""
