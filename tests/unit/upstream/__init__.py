"""The HTTP client, the decoder of server-sent events, and what errors and headers mean."""
