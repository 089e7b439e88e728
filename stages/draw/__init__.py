"""Curves, histograms and bars → SVG."""
