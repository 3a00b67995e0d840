"""Before and after: drives in this process, measured and tabled."""
