"""Pages, tables of the terminal and texts: results, formatted."""
