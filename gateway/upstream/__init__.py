"""What provider adapters stand on: their contract, the one HTTP client, the decoder of server-sent events."""
