"""Decoded pictures to RGB and back: matrix, range, rotation. The only place that knows how a file stores colour."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

logger = logging.getLogger(__name__)

BT709 = 1
"""Code of ITU-R BT.709 for matrix, primaries and transfer curve (ITU-T H.273, tables 2 to 4)."""
LIMITED_RANGE, FULL_RANGE = 1, 2
"""Luma from 16 to 235, or from 0 to 255 (libavutil's AVColorRange)."""

_SWS_BICUBIC, _SWS_FULL_CHROMA_OUT, _SWS_FULL_CHROMA_IN, _SWS_ACCURATE = 4, 0x2000, 0x4000, 0x40000
CAREFUL = _SWS_BICUBIC | _SWS_FULL_CHROMA_OUT | _SWS_FULL_CHROMA_IN | _SWS_ACCURATE
"""swscale flags: the default rounds luma down and repeats chroma, which is a shift of up to 3 levels."""

_MATRIX_TO_SWS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""H.273 matrix code -> swscale's number of its coefficients."""
_SWS_BT601 = 5
_TRANSFER_PQ, _TRANSFER_HLG = 16, 18


def source_matrix(matrix: int, height: int) -> int:
    """swscale's number for the YUV matrix of a file.

    Args:
        matrix: H.273 code from the file; 2 (or one we have no coefficients for): not said.
        height: of the stored picture, px. A file that does not say is BT.709 from 720 lines on and BT.601 below, as
            players assume.
    """
    if matrix in _MATRIX_TO_SWS:
        return _MATRIX_TO_SWS[matrix]
    return BT709 if height >= 720 else _SWS_BT601


def frame_to_rgb(frame: VideoFrame, reformatter: VideoReformatter, width: int, height: int) -> np.ndarray:
    """A decoded picture as `(height, width, 3)` uint8 RGB at full range, not yet turned upright.

    Any depth and chroma layout comes in; depth above 8 bits is rounded (swscale's deeper RGB output is half a level
    too dark, its 8-bit output is not).
    """
    is_full_range = int(frame.color_range) == FULL_RANGE or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    rgb = reformatter.reformat(
        frame,
        width=width,
        height=height,
        format="rgb24",
        interpolation=CAREFUL,
        src_colorspace=source_matrix(int(frame.colorspace), frame.height),
        src_color_range=FULL_RANGE if is_full_range else LIMITED_RANGE,
        dst_color_range=FULL_RANGE,
    )
    return rgb.to_ndarray()


def rgb_to_frame(picture: np.ndarray, reformatter: VideoReformatter) -> VideoFrame:
    """`(H, W, 3)` uint8 RGB with even H and W as a yuv420p picture: BT.709 matrix, limited range."""
    from av.video.frame import VideoFrame

    frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return reformatter.reformat(
        frame,
        format="yuv420p",
        interpolation=CAREFUL,
        src_color_range=FULL_RANGE,
        dst_colorspace=BT709,
        dst_color_range=LIMITED_RANGE,
    )


def tag_bt709(codec_context: Any) -> None:
    """Write down in the stream what `rgb_to_frame` did, so that every player shows the same colours."""
    codec_context.colorspace = BT709
    codec_context.color_primaries = BT709
    codec_context.color_trc = BT709
    codec_context.color_range = LIMITED_RANGE


def warn_about_hdr(frame: VideoFrame, name: str) -> None:
    """Say in the log that PQ and HLG material is shown without tone mapping."""
    if int(getattr(frame, "color_trc", 0) or 0) in (_TRANSFER_PQ, _TRANSFER_HLG):
        logger.warning("%s is HDR (PQ or HLG); its values are used as they are and look flat: tone-map it first.", name)


def display_orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """How a stored picture has to be turned to stand upright: (transpose, then flip columns, then flip rows).

    Read from the display matrix (ISO 14496-12, 8.3.2): stored point (x, y) goes to (a x + c y, b x + d y), of which
    only quarter turns and mirrorings exist in practice.
    """
    side_data: Any
    for side_data in frame.side_data:
        if getattr(side_data.type, "name", "") == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(side_data), dtype=np.int32)[:5].tolist()
            if abs(b) > abs(a):
                return True, c < 0, b < 0
            return False, a < 0, d < 0
    return False, False, False


def turn_upright(picture: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """Apply `display_orientation` to an `(H, W, 3)` picture; a view where possible."""
    transpose, flip_columns, flip_rows = orientation
    turned = picture.transpose(1, 0, 2) if transpose else picture
    return turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
