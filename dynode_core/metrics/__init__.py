"""Measurements of reconstructions and clips."""
