"""A data set's files, read by relative name and never from outside it; their digests."""
