"""Where candidates are measured: here, on boards, by a batch that travels, in a simulated core."""
