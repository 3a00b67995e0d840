"""Recording and curating: bags from the simulator, samples whose thought and path agree."""
