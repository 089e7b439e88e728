"""Artifacts: immutable HDF5 shards with receipts, who writes them, how they are looked after."""
