"""The main workflow on real clips in a real ComfyUI: seconds per node, peak memory, and what became of the face.

    ./demo.sh                                   # once: prepares the environment
    $PYTHON benchmarks/graph.py CLIP [CLIP ...] --embedder mobilefacenet_112.onnx --out benchmarks/results/graph.json

PYTHON is the one that `python3 scripts/comfy_env.py` prints. Sheets go to output/graph/. At 24 times per clip the
original crop, its reconstruction, the edited face and the blended frame are compared: identity cosine (with a
user's embedder), blendshapes (mouth, eyes, smile), head pose. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "scripts")]

import comfy_env  # noqa: E402
import demo  # noqa: E402
from comfy_client import ComfyClient  # noqa: E402
from comfy_server import ComfyServer  # noqa: E402
from machine import machine  # noqa: E402
from progress_lines import ProgressLines  # noqa: E402

TIMES = 24
CROP_PX = 512
SMILE, MOUTH_OPEN, EYES_CLOSED = (44, 45), (25,), (9, 10)
"""Indices into mediapipe's 52 blendshapes."""


def main() -> None:
    """Run every clip and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--embedder", type=Path, default=None, help="ONNX identity network of 112 px crops")
    parser.add_argument("--edit", default="smile", help="direction")
    parser.add_argument("--strength", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "edit": f"{options.edit}={options.strength:g}", "clips": {}}
    for clip in options.clips:
        report["clips"][clip.stem] = one_clip(clip.resolve(), options)
        text = json.dumps(report, indent=1)
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def one_clip(clip: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run the workflow with nothing cached, then measure its pictures."""
    environment = comfy_env.prepare()
    moments = demo.frame_times(clip)
    times = [moments[i] for i in np.unique(np.linspace(0, len(moments) - 1, TIMES).round().astype(int))]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with ComfyServer(environment, base, base / "server.log") as server:
            client = ComfyClient(server.address, server.base)
            shutil.copyfile(clip, server.base / "input" / clip.name)
            prompt = demo.set_up(client.load_prompt(demo.WORKFLOW), clip.name, times)
            edit = prompt[demo.only(prompt, "DynODE_EditFirstLatent")]["inputs"]
            edit |= {"direction": options.edit, "strength": options.strength}
            run = client.run(prompt, listener=ProgressLines(sys.stdout))
            if run.status != "success":
                raise SystemExit(run.describe_failure())
            inverted, edited = (client.saved_files(run, f"{branch}-save") for branch in ("inverted", "edited"))
            output = REPOSITORY / "output" / "graph"
            output.mkdir(parents=True, exist_ok=True)
            video = output / f"{clip.stem}.mp4"
            shutil.copyfile(client.saved_files(run, demo.only(prompt, "SaveVideo"))[0], video)
            faces = measure(clip, video, times, inverted, edited, options.embedder)
            import demo_sheet

            pick = np.unique(np.linspace(0, len(times) - 1, demo.SHEET_ROWS).round().astype(int))
            demo_sheet.write(
                output / f"{clip.stem}.png",
                clip,
                video,
                [times[i] for i in pick],
                [inverted[i] for i in pick],
                [edited[i] for i in pick],
            )
            peak = server.peak_memory_bytes()
    main_nodes = {n.title: round(n.seconds, 1) for n in run.nodes.values() if "sheet" not in n.title}
    return {
        "frames": len(moments),
        "seconds_of_video": round(moments[-1], 2),
        "graph_s": round(sum(main_nodes.values()), 1),
        "seconds_per_node": {title: seconds for title, seconds in main_nodes.items() if seconds >= 0.1},
        "peak_memory_gib": round(peak / 2**30, 2) if peak else None,
        "face": faces,
    }


def measure(
    clip: Path, video: Path, times: list[float], inverted: list[Path], edited: list[Path], embedder: Path | None
) -> dict[str, Any]:
    """Identity, expression and pose of the four columns, averaged over the times."""
    import demo_sheet
    from dynode_core.faces.landmarks import FaceLandmarker
    from dynode_core.metrics.identity import IdentityEmbedder
    from dynode_core.model_files import find_landmarker

    before, after = demo_sheet.frames_at(clip, times), demo_sheet.frames_at(video, times)
    quads = demo_sheet.face_quads(before)
    columns = [demo_sheet.network_to_bytes(demo_sheet.crop(frames, quads, CROP_PX)) for frames in (before, after)]
    pictures = {"original": list(columns[0]), "blended": list(columns[1])}
    pictures |= {
        name: [demo_sheet.read_picture(file, CROP_PX) for file in files]
        for name, files in (("inverted", inverted), ("edited", edited))
    }
    identity = IdentityEmbedder(embedder) if embedder else None
    with demo_sheet.without_native_log(), FaceLandmarker(find_landmarker()) as landmarker:
        found = {
            name: [next(iter(landmarker.detect(np.asarray(p))), None) for p in column]
            for name, column in pictures.items()
        }
    seen = [i for i in range(len(times)) if all(found[name][i] is not None for name in pictures)]
    result: dict[str, Any] = {"times": len(times), "face_found_in_all_columns": len(seen)}

    def blendshape(name: str, indices: tuple[int, ...]) -> np.ndarray:
        return np.array([found[name][i].blendshapes[list(indices)].mean() for i in seen])

    if identity is not None:
        vectors = {
            name: np.stack([identity.embed(np.asarray(pictures[name][i]), found[name][i].landmarks) for i in seen])
            for name in pictures
        }
        for name in ("inverted", "edited", "blended"):
            cosines = (vectors["original"] * vectors[name]).sum(axis=1)
            result[f"identity_original_{name}"] = {
                "mean": round(float(cosines.mean()), 3),
                "min": round(float(cosines.min()), 3),
            }
        result["embedder"] = identity.name
    for label, indices in (("mouth_open", MOUTH_OPEN), ("eyes_closed", EYES_CLOSED), ("smile", SMILE)):
        original, back = blendshape("original", indices), blendshape("inverted", indices)
        result[f"{label}_error"] = round(float(np.abs(original - back).mean()), 3)
        result[f"{label}_correlation"] = round(float(np.corrcoef(original, back)[0, 1]), 3)
    poses = {name: np.stack([found[name][i].pose_deg for i in seen]) for name in pictures}
    result["pose_error_deg"] = np.abs(poses["original"] - poses["inverted"]).mean(axis=0).round(2).tolist()
    change = blendshape("blended", SMILE) - blendshape("original", SMILE)
    result["smile_change_in_the_video"] = {"mean": round(float(change.mean()), 3), "min": round(float(change.min()), 3)}
    return result


if __name__ == "__main__":
    main()
