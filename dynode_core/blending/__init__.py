"""From edited crops back into the original frames. Knows nothing of latents."""
