"""Client dialects: requests in, bytes out."""
