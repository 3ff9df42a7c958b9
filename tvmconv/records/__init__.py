"""Tuning records: the log, its upkeep, and which schedule with which decisions a build takes."""
