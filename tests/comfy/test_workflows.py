"""The shipped workflows, run to the end in a real server on a small film, and what they leave behind."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from server_fixtures import FACE_PX, FILM_FPS, FILM_FRAMES, FILM_HEIGHT, FILM_WIDTH, quick

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
WORKFLOWS = Path(__file__).resolve().parent.parent.parent / "workflows"
LONG_NODES = ("DynODE_FrameAlign", "DynODE_Invert", "DynODE_BlendBack")


def small(client: Any, name: str) -> dict[str, Any]:
    """A shipped workflow with quick settings of its own, so that no cache knows the result from another test file."""
    prompt = quick(client.load_prompt(WORKFLOWS / f"{name}.json"))
    for node in prompt.values():
        if node["class_type"] == "DynODE_FrameAlign":
            node["inputs"]["smoothing"] = 0.9
    return prompt


class Finished:
    """A finished run and the video it saved."""

    def __init__(self, client: Any, name: str, prompt: dict[str, Any] | None = None) -> None:
        prompt = prompt or small(client, name)
        self.run = client.run(prompt, timeout_s=1500)
        assert self.run.succeeded, self.run.describe_failure()
        save = next(node_id for node_id, node in prompt.items() if node["class_type"] == "SaveVideo")
        (self.video,) = client.saved_files(self.run, save)

    def node(self, class_type: str) -> Any:
        return next(node for node in self.run.nodes.values() if node.class_type == class_type)


@pytest.fixture(scope="module")
def edited(client: Any) -> Finished:
    return Finished(client, "edit_face_video")


@pytest.fixture(scope="module")
def slowed(client: Any) -> Finished:
    return Finished(client, "slow_motion")


def read(path: Path) -> tuple[np.ndarray, Fraction, np.ndarray]:
    """Frames `(T, H, W, 3)` uint8, rate, and frame times in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        rate = container.streams.video[0].average_rate
    times = np.array([float(frame.time) for frame in frames])
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), Fraction(rate), times


def sound_packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return []
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def test_edited_video_keeps_frames_rate_and_size(edited: Finished) -> None:
    frames, rate, _ = read(edited.video)
    assert frames.shape == (FILM_FRAMES, FILM_HEIGHT, FILM_WIDTH, 3)
    assert rate == FILM_FPS


def test_edited_video_keeps_the_times_of_the_frames(edited: Finished, talking_face: Path) -> None:
    np.testing.assert_allclose(read(edited.video)[2], read(talking_face)[2], atol=1e-3)


def test_edited_video_keeps_the_sound_bit_for_bit(edited: Finished, talking_face: Path) -> None:
    before, after = sound_packets(talking_face), sound_packets(edited.video)
    assert len(after) > 5
    assert after == before[: len(after)]
    assert len(before) - len(after) <= 1, "at most the packet that begins with the end of the picture may be left out"


def test_edit_changes_the_face_and_not_the_wall(edited: Finished, talking_face: Path) -> None:
    before, after = read(talking_face)[0].astype(float), read(edited.video)[0].astype(float)
    change = np.abs(after - before).mean(axis=(0, 3))
    edge = np.concatenate([change[:, :40], change[:, -40:]], axis=1)
    middle = change[FILM_HEIGHT // 3 : 2 * FILM_HEIGHT // 3, FILM_WIDTH // 3 : 2 * FILM_WIDTH // 3]
    assert edge.mean() < 1.5, "the wall should only show what two encodings of H.264 do to it"
    assert middle.mean() > 2 * edge.mean()


@pytest.mark.parametrize("class_type", LONG_NODES)
def test_long_nodes_report_progress_to_the_end(edited: Finished, class_type: str) -> None:
    progress = edited.node(class_type).progress
    done = [done for done, _ in progress]
    assert len(progress) >= 3
    assert done == sorted(done)
    assert done[-1] == progress[-1][1]


def test_inversion_shows_its_reconstruction_while_it_works(edited: Finished) -> None:
    previews = edited.node("DynODE_Invert").previews
    assert previews
    assert min(Image.open(io.BytesIO(previews[-1])).size) >= 64


def test_second_run_with_another_edit_keeps_the_inversion(client: Any, edited: Finished) -> None:
    prompt = small(client, "edit_face_video")
    for node in prompt.values():
        if node["class_type"] == "DynODE_EditFirstLatent":
            node["inputs"]["strength"] += 0.5
    run = client.run(prompt, timeout_s=1500)
    assert run.succeeded, run.describe_failure()
    state = {node.class_type: node.cached for node in run.nodes.values()}
    assert state["DynODE_Invert"]
    assert not state["DynODE_BlendBack"]


def test_slow_motion_has_in_between_frames_and_lasts_longer(slowed: Finished) -> None:
    frames, rate, times = read(slowed.video)
    assert len(frames) == 4 * (FILM_FRAMES - 1) + 1
    assert rate == FILM_FPS
    assert times[-1] == pytest.approx(4 * (FILM_FRAMES - 1) / float(FILM_FPS), abs=2e-3)


def test_slow_motion_stretches_the_sound(slowed: Finished) -> None:
    with av.open(str(slowed.video)) as container:
        stream = container.streams.audio[0]
        seconds = float(stream.duration * stream.time_base)
    assert seconds == pytest.approx(4 * FILM_FRAMES / float(FILM_FPS), rel=0.1)


def test_workflow_with_an_edited_first_picture_runs(client: Any) -> None:
    frames, rate, _ = read(Finished(client, "edit_first_frame_image").video)
    assert len(frames) == FILM_FRAMES
    assert rate == FILM_FPS


def test_paint_on_the_first_frame_is_worn_in_every_frame(client: Any, talking_face: Path) -> None:
    prompt = small(client, "paint_on_first_frame")
    half = {"EmptyImage": ("width", "height"), "SolidMask": ("width", "height"), "ImageCompositeMasked": ("x", "y")}
    for node in prompt.values():  # the crops are half as large as those that the workflow paints on
        node["inputs"] |= {name: node["inputs"][name] // 2 for name in half.get(node["class_type"], ())}
        if node["class_type"] == "DynODE_EditFromPicture":
            node["inputs"] |= {"quality": "draft", "support": 0}
    painted = Finished(client, "paint_on_first_frame", prompt)
    before, after = read(talking_face)[0].astype(float), read(painted.video)[0].astype(float)
    assert after.shape == before.shape
    face_left, face_top = (FILM_WIDTH - FACE_PX) // 2, (FILM_HEIGHT - FACE_PX) // 2
    middle = face_left + FACE_PX // 2
    change = (after - before)[:, :, middle - 30 : middle + 30]
    bluer = (change[..., 2] - change[..., 0]).mean(axis=2)
    stripe, chin = face_top + round(0.585 * FACE_PX), face_top + round(0.8 * FACE_PX)
    assert (bluer[:, stripe - 2 : stripe + 3].mean(axis=1) > 50).all(), "the paint is missing in some frames"
    assert (abs(bluer[:, chin : chin + 8].mean(axis=1)) < 15).all(), "the paint is where nobody painted"
    (shown,) = (i for i, node in prompt.items() if node["_meta"]["title"] == "What became of it")
    assert "The generator expresses" in str(painted.run.outputs[shown])
