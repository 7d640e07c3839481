"""The socket types of the pack. Their names are part of saved workflows and never change."""

from __future__ import annotations

from comfy_api.latest import io

Generator = io.Custom("DYNODE_GENERATOR")
"""`devices.LoadedGenerator`."""
Encoder = io.Custom("DYNODE_ENCODER")
"""`devices.LoadedEncoder`."""
Aligned = io.Custom("DYNODE_ALIGNED")
"""`dynode_core.types.AlignedClip`."""
Codes = io.Custom("DYNODE_CODES")
"""`dynode_core.types.InvertedClip`."""
Trajectory = io.Custom("DYNODE_TRAJECTORY")
"""`dynode_core.types.LatentTrajectory`."""
Latent = io.Custom("DYNODE_LATENT")
"""`dynode_core.types.EditedLatent`."""
Sample = io.Custom("DYNODE_SAMPLE")
"""`dynode_core.types.TrajectorySample`."""
Directions = io.Custom("DYNODE_DIRECTIONS")
"""A tuple of `dynode_core.types.EditDirection`."""
Faces = io.Custom("DYNODE_FACES")
"""`dynode_core.rendering.FaceFrames`: face pictures that are made when they are read."""
Texture = io.Custom("DYNODE_TEXTURE")
"""`dynode_core.types.FaceTexture`."""
FaceLandmarks = io.Custom("FACE_LANDMARKS")
"""What ComfyUI's own MediaPipe Face Landmarker hands out; its name is ComfyUI's."""

CATEGORY = "DynODE"
