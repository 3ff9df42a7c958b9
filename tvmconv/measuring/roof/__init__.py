"""The most that this machine can do, measured."""
