"""Adapters: LoRA on both halves, their folder, their arithmetic, and merging."""
