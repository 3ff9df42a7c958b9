"""Operators of a model that are not convolutions: each is scheduled here by a simple rule."""
