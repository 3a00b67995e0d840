"""The drive node: its settings, its messages, its log, and when it ends."""
