"""Faces → templates: fusion rules, the stage that applies them, and templates as a file for others."""
