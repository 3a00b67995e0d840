"""Recording: topics into an mcap bag, and a report of what was lost."""
