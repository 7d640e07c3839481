"""Codes from a file, ours or another program's, made ready for a generator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..artifacts import is_artifact, load_artifact
from ..checks import check_shape
from ..families import move_rows
from ..generators.protocol import Generator
from ..types import AlignedClip, InvertedClip
from .foreign_codes import AUTOMATIC, FramesOfCodes, read_foreign_codes


def load_codes(
    path: Path | str,
    generator: Generator,
    frames: FramesOfCodes | None = None,
    *,
    layout: str = AUTOMATIC,
    aligned: AlignedClip | None = None,
) -> InvertedClip:
    """Codes that `artifacts.save_artifact` wrote, or those of another program (see `read_foreign_codes`).

    Args:
        frames: which frames the codes of another program belong to; ours know it.
        layout: how a table of another program is read.
        aligned: the clip whose faces they show.
    Returns:
        Codes of the generator's family. `report["notes"]` says what speaks against them.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no codes in it, or codes that do not fit the generator or the clip.
    """
    path = Path(path)
    if not is_artifact(path):
        return read_foreign_codes(path, generator, frames, layout=layout, aligned=aligned)
    codes: InvertedClip = load_artifact(path, InvertedClip)
    notes = []
    if codes.family != generator.family:
        moved = move_rows(codes.w_plus, codes.family, generator.family, generator.num_ws)
        notes.append(f"The codes were moved from {codes.family} to {generator.family}.")
        if codes.tuning is not None:
            notes.append("Their tuned weights belong to the other generator and were left out.")
        codes = replace(codes, w_plus=moved, family=generator.family, tuning=None)
    elif codes.generator_id != generator.generator_id:
        notes.append("They were found with other weights of the same family: pictures of them may look different.")
    check_shape(f"The codes of {path.name}", codes.w_plus, ("K", generator.num_ws, generator.w_dim))
    source = codes.report.get("source")
    if aligned is not None and source not in (None, aligned.clip.clip_id):
        notes.append("They were found for another clip than the connected one.")
    return replace(codes, report={**codes.report, "file": path.name, "notes": notes})


def describe_codes(codes: InvertedClip) -> str:
    """What a person wants to know about loaded codes, a line each."""
    report, last = codes.report, codes.times[-1]
    lines = [
        f"{report.get('file', 'codes')}: {len(codes.times)} codes from {codes.times[0]:.3f} s to {last:.3f} s of a "
        f"clip of {len(codes.frame_times)} frames at {float(codes.fps):.3f} fps",
        f"generator: {codes.family}, weights {codes.generator_id}",
        f"tuned weights: {_tuned_text(codes)}",
        f"source clip: {report.get('source', 'not named')}",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in report.get("notes", ()))])


def _tuned_text(codes: InvertedClip) -> str:
    if codes.tuning is None:
        return "no"
    return f"{len(codes.tuning.sets)} sets, one for each shot" if codes.tuning.later else "yes"
