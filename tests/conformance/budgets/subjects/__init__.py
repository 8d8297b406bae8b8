"""The ledgers under judgement, one a file."""
