"""Open-loop evaluation: plans against what was driven, verdicts, tables, plots."""
