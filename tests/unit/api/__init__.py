"""The HTTP side, part by part."""
