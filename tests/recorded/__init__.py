"""Recorded vendor traffic, replayed."""
