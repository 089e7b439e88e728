"""The numbers of a finished run, read again: everything derived, nothing formatted."""
