"""The tiny base: its architecture, its training data and its training."""
