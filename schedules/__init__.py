"""Schedules: one folder per hardware family, the same file names in each."""
