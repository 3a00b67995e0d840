"""``alpamayo-mono doctor``: whether a recording or a drive would be worth starting, and what to do if not."""
