"""Counterfactual pairs: one frame of the simulator, several futures, each with the text that belongs to it."""
