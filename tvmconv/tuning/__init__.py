"""Tuning: records (log), candidates measured in a warm process (measure), search, sessions."""
