"""Finetuning: samples to batches, the joint loss, the loop, and its resume."""
