"""IJB-B and IJB-C: the common package and NIST's own lists, read and written."""
