"""What would run, and why: the data set's tables, the graph of steps, every shard with its key. Nothing runs here."""
