"""The numbers of a finished run, read again: rows, differences, what comes first, what was published: nothing formatted."""
