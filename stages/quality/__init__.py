"""What a face or a template is worth: quality scores, their scale, reference statistics."""
