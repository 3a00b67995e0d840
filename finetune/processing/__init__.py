"""Images and words to what the model eats, and back."""
