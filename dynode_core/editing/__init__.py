"""Directions and other ways to change one code."""
