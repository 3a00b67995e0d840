"""Alpamayo-R1 and its adapters: the model, its losses, training and open-loop evaluation."""
