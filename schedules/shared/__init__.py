"""Loop nests, and the arithmetic of their tiles, that packs for several kinds of CPU share."""
