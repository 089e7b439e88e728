"""Artifacts: immutable HDF5 shards with receipts, who writes them, and how the store is looked after."""
