"""The languages that the chaos provider speaks: each turns a plan into frames, a whole answer, or a refusal."""
