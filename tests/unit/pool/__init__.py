"""Routes, endpoints, attempts and retries."""
