"""Times and counts: where kernels run, what the machine could do, and what other libraries do."""
