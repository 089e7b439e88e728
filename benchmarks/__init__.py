"""How fast the project is, as ratios against the field's common method in one run: `python -m benchmarks`."""
