"""Make the mean face mesh that ships with the pack: `dynode_core/faces/data/mean_face.safetensors`.

    python scripts/make_mean_face.py --faces 100

Generated faces are rendered, mediapipe's mesh of each is turned to look ahead by its head pose, brought to the same
place and size and averaged, and the mean is made symmetric. One face takes about 0.6 s.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.load import load_generator
from dynode_core.faces.five_points import five_points
from dynode_core.faces.landmarks import FaceLandmarker
from dynode_core.faces.posed_mesh import MEAN_FACE_FILE
from dynode_core.layout import network_to_bytes
from dynode_core.memory import reuse_large_blocks
from dynode_core.model_files import find_landmarker

SEED = 5
TRUNCATION_PSI = 0.7


def main() -> None:
    """Render, measure, average, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100)
    parser.add_argument("--out", type=Path, default=MEAN_FACE_FILE)
    args = parser.parse_args()
    generator = load_generator()
    random = torch.Generator().manual_seed(SEED)
    meshes: list[np.ndarray] = []
    with torch.no_grad(), reuse_large_blocks(), FaceLandmarker(find_landmarker()) as landmarker:
        for _ in range(args.faces):
            z = torch.randn(1, generator.z_dim, generator=random)
            image = generator.synthesize(generator.map(z, truncation_psi=TRUNCATION_PSI))
            for face in landmarker.detect(network_to_bytes(F.avg_pool2d(image, 2))[0])[:1]:
                if face.depth is not None and face.pose_deg is not None:
                    meshes.append(looking_ahead(face.landmarks, face.depth, face.pose_deg))
    mesh = symmetric(np.mean(meshes, axis=0))
    mesh -= five_points(mesh).mean(axis=0)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"mesh": mesh.astype(np.float32)}, args.out, {"made by": f"make_mean_face.py, {len(meshes)} faces"})
    print(f"{args.out}: the mean of {len(meshes)} faces")


def looking_ahead(landmarks: np.ndarray, depth: np.ndarray, pose_deg: np.ndarray) -> np.ndarray:
    """`(478, 3)` mesh as `posed_mesh.mean_face` wants it, of one face."""
    yaw, pitch, roll = np.radians(pose_deg.astype(np.float64)) * (1, -1, -1)
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    mesh = np.column_stack([landmarks * (1, -1), -depth]) @ (tilt @ turn @ nod)
    points = five_points(mesh)
    return (mesh - points.mean(axis=0)) / np.linalg.norm(points[1] - points[0])


def symmetric(mesh: np.ndarray) -> np.ndarray:
    """The mean of a mesh and its mirror image, in which each point meets its twin of the other half."""
    mirrored = mesh * (-1, 1, 1)
    twin = np.linalg.norm(mesh[:, None] - mirrored[None], axis=2).argmin(axis=1)
    if (twin[twin] != np.arange(len(mesh))).any():
        raise ValueError("The two halves of the mesh do not match point by point. Average more faces.")
    return (mesh + mirrored[twin]) / 2


if __name__ == "__main__":
    main()
