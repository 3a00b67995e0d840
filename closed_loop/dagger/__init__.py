"""Dataset aggregation: a finetuned model drives, and the expert says what would have been right where it came to."""
