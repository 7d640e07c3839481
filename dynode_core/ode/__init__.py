"""The trajectory of the codes as a neural ODE. Knows nothing of images."""
