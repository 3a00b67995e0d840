"""Recording and curating: bags from the simulator, samples whose reasoning and path agree."""
