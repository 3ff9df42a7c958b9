"""What a bundle holds: the manifest, its variants and which of them runs here, atomic publication."""
