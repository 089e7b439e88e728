"""One score: its templates, media and faces, and what each face does to it."""
