"""Landmarks, tracks, quads, crops and masks. Knows nothing of latents."""
