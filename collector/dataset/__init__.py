"""The dataset: what a sample is, how it is cut from bags, split, balanced and shown."""
