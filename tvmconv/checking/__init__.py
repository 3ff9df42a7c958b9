"""The truth in float64, and what every pack and every kernel must hold."""
