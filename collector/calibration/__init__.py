"""The camera's time offset and pitch, from a recorded bag."""
