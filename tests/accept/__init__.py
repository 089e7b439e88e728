"""What takes too long for the tests: all of LFW, ten seeds, many kills. `make accept` writes
docs/acceptance.md.
"""
