"""What would run, and why: tables, the graph of steps, every shard's key. Nothing runs here."""
