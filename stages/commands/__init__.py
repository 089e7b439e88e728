"""The verbs that know of faces."""
