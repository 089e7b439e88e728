"""Model cards, network architectures, checkpoint loading, inference back ends and face detectors."""
