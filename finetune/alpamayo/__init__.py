"""Alpamayo-R1 rebuilt on transformers' Qwen3-VL, compatible with the official checkpoints."""
