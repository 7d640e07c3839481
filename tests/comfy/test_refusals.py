"""Bad input in a real server: a sentence that helps, from the right node, before the long work starts."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server_fixtures import FILM_FPS, quick, write_film

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
WORKFLOW = Path(__file__).resolve().parent.parent.parent / "workflows" / "edit_face_video.json"


def changed(client: Any, class_type: str, **inputs: Any) -> dict[str, Any]:
    """The quick workflow with other inputs in its node of type `class_type`; "a__b" stands for "a.b"."""
    prompt = quick(client.load_prompt(WORKFLOW))
    node = next(node for node in prompt.values() if node["class_type"] == class_type)
    node["inputs"] |= {name.replace("__", "."): value for name, value in inputs.items()}
    return prompt


def refusal(client: Any, prompt: dict[str, Any]) -> str:
    """What the user is told; the inversion has not begun."""
    run = client.run(prompt, timeout_s=1500)
    assert not run.succeeded
    worked = {node.class_type for node in run.nodes.values() if node.progress or node.finished}
    assert "DynODE_Invert" not in worked, "the refusal came after the long work"
    return str(run.describe_failure())


def write_clip(client: Any, name: str, frames: np.ndarray) -> str:
    write_film(client.base / "input" / name, frames)
    return name


def test_times_that_do_not_increase(client: Any) -> None:
    message = refusal(client, changed(client, "DynODE_SolveAtTimes", mode="list", mode__times="0, 0.2, 0.1"))
    assert "Solve" in message
    assert "increas" in message


def test_times_that_are_no_numbers(client: Any) -> None:
    message = refusal(client, changed(client, "DynODE_SolveAtTimes", mode="list", mode__times="0, soon"))
    assert "soon" in message


def test_edit_limit_that_is_neither_off_nor_a_limit(client: Any) -> None:
    message = refusal(client, changed(client, "DynODE_SolveAtTimes", edit_limit=0.5))
    assert "edit_limit should be 0" in message


def test_direction_of_the_wrong_size(client: Any) -> None:
    folder = client.base / "models" / "latent_directions"
    np.save(folder / "wrong_size.npy", np.zeros((3, 7), np.float32))
    client.get_json("/object_info")
    message = refusal(client, changed(client, "DynODE_EditFirstLatent", direction="wrong_size.npy"))
    assert "wrong_size" in message
    assert "3" in message and "7" in message


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


def test_direction_file_with_code_in_it_is_refused_and_not_run(client: Any, tmp_path: Path) -> None:
    trace = tmp_path / "code_was_run"
    folder = client.base / "models" / "latent_directions"
    (folder / "code.pt").write_bytes(pickle.dumps(_Payload(trace)))
    client.get_json("/object_info")
    message = refusal(client, changed(client, "DynODE_EditFirstLatent", direction="code.pt"))
    assert "code.pt" in message
    assert not trace.exists()


def test_layers_that_are_no_range(client: Any) -> None:
    message = refusal(client, changed(client, "DynODE_EditFirstLatent", layers="7-2"))
    assert "7-2" in message


def test_file_that_is_no_video(client: Any) -> None:
    (client.base / "input" / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    message = refusal(client, changed(client, "LoadVideo", file="noise.mp4"))
    assert "noise.mp4" in message


def test_video_that_was_cut_off(client: Any, talking_face: Path) -> None:
    data = talking_face.read_bytes()
    (client.base / "input" / "cut_off.mp4").write_bytes(data[: len(data) // 2])
    message = refusal(client, changed(client, "LoadVideo", file="cut_off.mp4"))
    assert "cut_off.mp4" in message


def test_video_without_a_face(client: Any) -> None:
    name = write_clip(client, "wall.mp4", np.full((4, 240, 320, 3), 127, np.uint8))
    message = refusal(client, changed(client, "LoadVideo", file=name))
    assert "FrameAlign" in message
    assert "face" in message


def test_video_of_one_frame(client: Any, talking_face: Path) -> None:
    import av

    with av.open(str(talking_face)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    name = write_clip(client, "one_frame.mp4", first[None])
    message = refusal(client, changed(client, "LoadVideo", file=name))
    assert "frame" in message


def test_after_all_that_a_good_clip_still_runs(client: Any, talking_face: Path) -> None:
    shutil.copyfile(talking_face, client.base / "input" / "again.mp4")
    prompt = changed(client, "LoadVideo", file="again.mp4")
    align = next(node_id for node_id, node in prompt.items() if node["class_type"] == "DynODE_FrameAlign")
    keep = {node_id for node_id, node in prompt.items() if node["class_type"] in ("LoadVideo", "DynODE_FrameAlign")}
    prompt = {node_id: prompt[node_id] for node_id in keep}
    prompt["look"] = {"class_type": "PreviewImage", "inputs": {"images": [align, 2]}}
    run = client.run(prompt, timeout_s=1500)
    assert run.succeeded, run.describe_failure()
    assert FILM_FPS > 0 and client.saved_files(run, "look")
