"""What the tests stand on: providers, servers, clients and observers that share no code with the product."""
