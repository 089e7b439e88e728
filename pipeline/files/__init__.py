"""A data set's files: a folder, a zip or a pack of images, read by relative name and never from outside it; their digests."""
