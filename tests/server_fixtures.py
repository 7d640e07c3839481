"""Fixtures of the tests that run a real ComfyUI: a small film of a person who does not exist, a server, a client.

No footage of real people is part of the repository, so the film is made with the pack's own generator.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

FILM_FRAMES = 12
FILM_FPS = Fraction(30000, 1001)
FILM_HEIGHT, FILM_WIDTH = 288, 384
FACE_PX = 256
SAMPLE_RATE = 16000
WORKFLOWS = [
    "edit_face_video",
    "slow_motion",
    "edit_first_frame_image",
    "paint_on_first_frame",
    "two_people",
    "find_a_direction",
]
"""Every example of the pack, by the name of its file."""


@pytest.fixture(scope="session")
def talking_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of FILM_FRAMES frames at FILM_FPS with a tone: one face that moves a little before a grey wall."""
    folder = tmp_path_factory.mktemp("film")
    path = folder / "talking_face.mp4"
    write_film(path, _wall_with(_moving_face(folder)), sound=True)
    return path


def _moving_face(cache: Path) -> np.ndarray:
    """`(T, FACE_PX, FACE_PX, 3)` uint8: the way from one code towards another and back, in pose and shape only."""
    import torch

    from dynode_pack.dynode_core.checkpoints.load import load_generator
    from dynode_pack.dynode_core.layout import network_to_bytes

    generator = load_generator(cache_dir=cache)
    z = torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        start, other = generator.map(z, truncation_psi=0.5)
        there = []
        for index in range(FILM_FRAMES // 2):
            amount = 0.35 * math.sin(math.pi * index / (FILM_FRAMES - 1))
            code = start.clone()
            code[:7] = torch.lerp(start[:7], other[:7], amount)
            there.append(network_to_bytes(generator.synthesize(code[None], size=FACE_PX))[0])
    return np.stack([*there, *reversed(there)])


def _wall_with(faces: np.ndarray) -> np.ndarray:
    film = np.full((len(faces), FILM_HEIGHT, FILM_WIDTH, 3), 128, np.uint8)
    top, left = (FILM_HEIGHT - FACE_PX) // 2, (FILM_WIDTH - FACE_PX) // 2
    film[:, top : top + FACE_PX, left : left + FACE_PX] = faces
    return film


def write_film(path: Path, frames: np.ndarray, *, fps: Fraction = FILM_FPS, sound: bool = False) -> None:
    """Write `(T, H, W, 3)` uint8 frames as H.264, with a tone as AAC if `sound`."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps)
        picture.height, picture.width, picture.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        picture.options = {"crf": "12"}
        tone = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound else None
        for frame in frames:
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(picture.encode(None))
        if tone is not None:
            seconds = np.arange(int(SAMPLE_RATE * len(frames) / fps)) / SAMPLE_RATE
            wave = (0.3 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)[None]
            samples = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            samples.sample_rate = SAMPLE_RATE
            container.mux(tone.encode(samples))
            container.mux(tone.encode(None))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, talking_face: Path) -> Iterator[Any]:
    """A running `ComfyServer` with the film in its input folder."""
    import shutil

    import comfy_env
    from comfy_server import ComfyServer, prepare_base

    environment = comfy_env.prepare(dev=True)
    base = tmp_path_factory.mktemp("comfyui")
    prepare_base(base)
    shutil.copyfile(talking_face, base / "input" / talking_face.name)
    with ComfyServer(environment, base, base / "server.log") as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Any) -> Any:
    """A `ComfyClient` of the running server."""
    from comfy_client import ComfyClient

    return ComfyClient(server.address, server.base)


QUICK = {
    "LoadVideo": {"file": "talking_face.mp4"},
    "DynODE_FrameAlign": {"crop_size": "256"},
    "DynODE_Invert": {"quality": "draft", "keyframe_every": 6, "max_steps": 4},
    "DynODE_Render": {"size": "256"},
}
"""Inputs that make a workflow quick on a small film, by node type."""


def quick(prompt: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The prompt with the film in it and QUICK settings; what a link feeds stays as it is."""
    result = {}
    for node_id, node in prompt.items():
        inputs = dict(node["inputs"])
        for name, value in QUICK.get(node["class_type"], {}).items():
            if not isinstance(inputs.get(name), list):
                inputs[name] = value
        result[node_id] = {**node, "inputs": inputs}
    return result
