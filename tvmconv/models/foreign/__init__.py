"""Other people's runtimes, each with one model file open and its inputs in place."""
