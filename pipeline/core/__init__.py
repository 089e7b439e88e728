"""What a stage sees: batches and their schemas, the stage itself, numerics, names for parts."""
