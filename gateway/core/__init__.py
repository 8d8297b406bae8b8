"""Values and protocols that every layer shares: standard library and msgspec only, no I/O."""
