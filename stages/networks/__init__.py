"""Networks whose weights are checkpoints: each has the names and shapes of the published module."""
