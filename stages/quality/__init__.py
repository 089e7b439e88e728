"""What a face is worth: quality scores, of templates too, on a common scale, and statistics of a reference set."""
