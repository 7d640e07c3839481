"""Whether a reconstruction still shows the same person, as a loss.

Any ArcFace-style embedder of 112 px faces serves; the pack's choice is SFace of the OpenCV Zoo (Zhong et al. 2021,
Apache-2.0). Measured with another embedder (MobileFaceNet) on 8 keyframes of a clip with strong expressions, weight
0.1, joint refinement with tuned weights: cosine 0.53 without this loss, 0.83 with it (ours).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from ..checkpoints.errors import CheckpointError
from ..checkpoints.onnx_file import read_onnx
from ..faces.five_points import TEMPLATE_112, five_points, similarity
from .feed_forward import FeedForward

FACE_PX = 112


class IdentityNetwork:
    """Embeddings of faces, differentiable.

    Args:
        onnx_path: one input `(1, 3, 112, 112)` RGB. A network that begins with a subtraction takes 0...255, any other
            one (x - 127.5) / 127.5.
        device: where it works.
    Raises:
        FileNotFoundError, CheckpointError: see `read_onnx` and `FeedForward`.
    """

    def __init__(self, onnx_path: Path, device: torch.device | str = "cpu") -> None:
        self.name = onnx_path.stem
        graph = read_onnx(onnx_path)
        try:
            network = FeedForward(graph)
            with torch.no_grad():
                network(torch.zeros(1, 3, FACE_PX, FACE_PX))
        except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise CheckpointError(f"{onnx_path.name} holds no network that embeds faces: {reason}") from error
        self._network = network.to(device)
        self._device = torch.device(device)

    def embed(self, images: Tensor, grid: Tensor) -> Tensor:
        """`(N, E)` unit vectors of `(N, 3, S, S)` images in [-1, 1], sampled at `grid` (see `face_grid`)."""
        faces = F.grid_sample(images, grid.expand(len(images), -1, -1, -1), padding_mode="border", align_corners=False)
        faces = faces.clamp(-1, 1)
        if self._network.subtracts_first:
            faces = (faces + 1) * 127.5
        return F.normalize(self._network(faces).flatten(1))

    def loss_for(self, target: Tensor, landmarks: np.ndarray) -> IdentityLoss:
        """The loss against one picture `(1, 3, S, S)` whose mesh `landmarks` `(478, 2)` are in units of its side."""
        return IdentityLoss(self, target, face_grid(landmarks).to(self._device))


class IdentityLoss:
    """1 - cosine between the faces at the same place of the target and of other images."""

    def __init__(self, network: IdentityNetwork, target: Tensor, grid: Tensor) -> None:
        self._network, self._grid = network, grid
        with torch.no_grad():
            self._wanted = network.embed(target, grid)

    def __call__(self, images: Tensor) -> Tensor:
        """`(N,)` losses of `(N, 3, S, S)` images of any size."""
        return 1 - (self._network.embed(images, self._grid) * self._wanted).sum(dim=1)


def face_grid(landmarks: np.ndarray) -> Tensor:
    """`(1, 112, 112, 2)` places for `grid_sample` that cut out the face as embedders expect it.

    Args:
        landmarks: `(478, 2)` mesh in units of the image's side, origin top-left.
    """
    return grid_of_points(five_points(landmarks))


def grid_of_points(points: ArrayLike) -> Tensor:
    """The same from the `(5, 2)` eyes, nose and corners of the mouth (see `five_points`)."""
    to_template = np.vstack([similarity(np.asarray(points, float), TEMPLATE_112 + 0.5), (0.0, 0.0, 1.0)])
    to_image = np.linalg.inv(to_template)
    half = FACE_PX / 2
    from_unit = np.array([(half, 0, half), (0, half, half), (0, 0, 1.0)])  # [-1, 1] to pixels of the face
    to_unit = np.array([(2.0, 0, -1), (0, 2, -1), (0, 0, 1)])  # sides of the image to [-1, 1]
    theta = torch.from_numpy((to_unit @ to_image @ from_unit)[:2]).float()
    return F.affine_grid(theta[None], [1, 3, FACE_PX, FACE_PX], align_corners=False)
