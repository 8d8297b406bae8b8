"""What must hold for every input, judged by hypothesis and by exhaustion."""
