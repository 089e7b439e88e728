"""How fast the project is beside the field's common method: `python -m benchmarks`."""
