"""The journals under judgement, one a file."""
