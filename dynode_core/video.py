"""Reading and writing video files without holding them in memory."""

from .clip import TensorClip, exact_fps
from .video_read import FileClip
from .video_write import VideoWriter

__all__ = ["FileClip", "TensorClip", "VideoWriter", "exact_fps"]
