"""What verbs do with whole models."""
