"""One face: image → pixels → crop → embedding."""
