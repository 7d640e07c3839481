"""A face landmarker for nodes that can do without one."""

from __future__ import annotations

import logging

from ..dynode_core.editing.picture_change import FindFaces
from ..dynode_core.faces.landmarks import FaceLandmarker
from ..dynode_core.model_files import find_landmarker
from . import model_folders


def face_finder() -> FindFaces | None:
    """Finds faces in a picture, or None with a line in the log where that can't be done here."""
    try:
        return FaceLandmarker(find_landmarker(model_folders.folders(model_folders.LANDMARKERS))).detect
    except (FileNotFoundError, RuntimeError) as reason:
        logging.getLogger(__name__).warning("Faces can't be looked for in pictures here: %s", reason)
        return None
