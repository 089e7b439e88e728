"""Templates → scores and lists of candidates: comparison, search, scores by faces or by quality."""
