"""The data model: a data set's tables, comparisons as lists or as pairs of roles."""
