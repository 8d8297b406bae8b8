"""The streams package, part by part, on the memory journal and a clock that the tests turn."""
