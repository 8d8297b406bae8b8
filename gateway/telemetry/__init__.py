"""What operators see: metrics in one table, JSON logs without prompts or secrets."""
