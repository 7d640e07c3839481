"""ArcFace on IR-SE-50: a unit vector per face, near for the same person.

Facts: `models.encoders.model_irse.Backbone` and `criteria.id_loss` of encoder4editing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbone import State, body, input_layer, load_strictly, missing

_FACE_ROWS, _FACE_COLUMNS = slice(35, 223), slice(32, 220)
_INPUT_SIZE = 112


class IdentityNetwork(nn.Module):
    """`(N, 3, S, S)` aligned faces in [-1, 1] to `(N, E)` unit vectors, differentiable in the images.

    Args:
        state: tensors of `model_ir_se50.pth`.
    Raises:
        ValueError: tensors are missing or misshapen.
    """

    def __init__(self, state: State) -> None:
        super().__init__()
        channels = len(missing(state, "output_layer.0.weight"))
        outputs, inputs = missing(state, "output_layer.3.weight").shape
        with torch.inference_mode(False), torch.no_grad():
            self.input_layer, self.body = input_layer(state), body(state)
            self.output_layer = nn.Sequential(
                nn.BatchNorm2d(channels),
                nn.Dropout(),
                nn.Flatten(),
                nn.Linear(inputs, outputs),
                nn.BatchNorm1d(outputs),
            )
            load_strictly(self, state)
        self.eval().requires_grad_(False)

    def forward(self, faces: Tensor) -> Tensor:
        if faces.shape[-1] != 256:
            faces = F.adaptive_avg_pool2d(faces, 256)
        inner = F.adaptive_avg_pool2d(faces[:, :, _FACE_ROWS, _FACE_COLUMNS], _INPUT_SIZE)
        return F.normalize(self.output_layer(self.body(self.input_layer(inner))), dim=1)
