"""Reasoning text: written from geometry, read for its claims, held against the path."""
