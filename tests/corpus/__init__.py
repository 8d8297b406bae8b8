"""Bodies written from documentation, one file each, and what they must mean."""
