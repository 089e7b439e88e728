"""Scores and lists → numbers: error rates, error versus discard, with counts and intervals."""
