"""The recorded motion: poses over time, cut where it is not continuous, cleaned by its own noise."""
