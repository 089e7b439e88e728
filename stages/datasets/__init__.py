"""Readers: a published protocol's own files, or a user's → the tables."""
