"""Model cards, networks, checkpoints, inference back ends and face detectors."""
