"""Which points of the 478-point face mesh outline the parts that inversion must not lose.

Indices as documented for mediapipe's face mesh topology.
"""

from __future__ import annotations

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE = (168, 193, 417, 129, 358, 98, 327, 2)
UPPER_LOWER_LIP = ((13, 14), (312, 317), (82, 87))
UPPER_LOWER_LID = ((159, 145), (386, 374))
EYE_CORNERS = ((33, 133), (362, 263))
"""Pairs of points whose distance is the opening of the mouth, of the eyes, and the width of the eyes."""
