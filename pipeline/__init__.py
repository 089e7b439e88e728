"""The engine: schemas, keys, store, plan and runner. It knows nothing of faces and never imports `stages`."""
