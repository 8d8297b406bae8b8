"""Agents: event sources that call the pool. They know `gateway.core` and their own `ports`, nothing else."""
