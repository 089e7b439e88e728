"""One reader a protocol: a data set's own files → the tables of `stages.tables`."""
