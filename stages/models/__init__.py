"""Model cards, weight files, checkpoints and inference back ends."""
