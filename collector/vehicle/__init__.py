"""The kart: its numbers, where its wheels say it went, and how a bag tells both."""
