"""Warm processes that compile and time, which a bad candidate may ruin."""
