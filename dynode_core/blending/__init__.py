"""From edited crops back into the original frames. Knows nothing of latents."""

from .blend import blend_clip
from .settings import BlendSettings

__all__ = ["BlendSettings", "blend_clip"]
