"""One file for each provider under judgement; see `tests.conformance.providers.subject`."""
