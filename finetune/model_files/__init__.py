"""Model folders as data: where they lie, what they say, their weights by header."""
