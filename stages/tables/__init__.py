"""The data model: the tables of a data set, comparisons as lists or as pairs of roles, and texts that hold tables."""
