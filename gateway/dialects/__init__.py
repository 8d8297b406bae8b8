"""Client dialects, one file a client API, pure: body -> ChatRequest, events -> bytes, error -> body."""
