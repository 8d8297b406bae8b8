"""The pool: which endpoint answers a request, and what happens when one fails. Knows no vendor and no HTTP."""
