"""Faces → templates: fusion rules, the stage that applies them, templates as a file."""
