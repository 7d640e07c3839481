"""DynODE: edit and re-time face video along a neural ODE in a GAN's latent space.

The core never imports ComfyUI. `nodes/` adapts it to ComfyUI, `cli.py` to the command line.
"""

__version__ = "0.1.0"
