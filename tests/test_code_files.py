"""Codes in files: ours and those of other programs, whatever their layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_inversion import _aligned
from tiny_generators import tiny_mobile, tiny_stylegan2, tiny_stylegan2_state

from dynode_pack.dynode_core.artifacts import save_artifact
from dynode_pack.dynode_core.checkpoints.errors import CheckpointError, RefusedCheckpointError
from dynode_pack.dynode_core.checkpoints.tensors import load_tensors
from dynode_pack.dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_pack.dynode_core.generators.stylegan2 import StyleGAN2
from dynode_pack.dynode_core.inversion.code_files import describe_codes, load_codes
from dynode_pack.dynode_core.inversion.foreign_codes import ONE_CODE, W_CODES, FramesOfCodes
from dynode_pack.dynode_core.tuned_weights import Tuning
from dynode_pack.dynode_core.types import InvertedClip, TrajectorySample

MOBILE, STYLEGAN2 = "mobile_stylegan-faces-128", "stylegan2-faces-128x12"


@pytest.fixture(scope="module")
def generator() -> MobileStyleGAN:
    made = tiny_mobile()
    made.family = MOBILE
    return made


@pytest.fixture
def codes(generator: MobileStyleGAN) -> InvertedClip:
    """Three codes as the generator samples them, with rows that differ a little."""
    random = torch.Generator().manual_seed(0)
    w_plus = generator.map(torch.randn(3, generator.z_dim, generator=random))
    return InvertedClip(
        w_plus=w_plus + 0.01 * torch.randn(w_plus.shape, generator=random),
        times=np.array([0.0, 0.2, 0.4]),
        frame_indices=np.array([0, 2, 4]),
        loss=np.zeros(3, np.float32),
        frame_times=np.arange(5) / 10.0,
        fps=Fraction(10),
        family=generator.family,
        generator_id=generator.generator_id,
        report={"source": "a clip"},
    )


Writer = Callable[[Path, np.ndarray], Path]


def _torch(value: Callable[[torch.Tensor], Any], name: str = "codes.pt") -> Writer:
    def write(folder: Path, w_plus: np.ndarray) -> Path:
        torch.save(value(torch.from_numpy(w_plus)), folder / name)
        return folder / name

    return write


def _npy(folder: Path, w_plus: np.ndarray) -> Path:
    np.save(folder / "codes.npy", w_plus.astype(np.float64))
    return folder / "codes.npy"


def _npz(folder: Path, w_plus: np.ndarray) -> Path:
    np.savez(folder / "projected_w.npz", w=w_plus)
    return folder / "projected_w.npz"


def _safetensors(folder: Path, w_plus: np.ndarray) -> Path:
    save_file({"w_plus": torch.from_numpy(w_plus)}, folder / "codes.safetensors")
    return folder / "codes.safetensors"


WRITERS: dict[str, Writer] = {
    "e4e tensor": _torch(lambda w: w),
    "list of codes": _torch(lambda w: list(w[:, None])),
    "file names": _torch(lambda w: {f"frame_{[2, 10, 11][i]}.jpg": code for i, code in enumerate(w)}),
    "STIT": _torch(lambda w: {"generator": {"a.weight": torch.zeros(4, 4)}, "pivots": w, "quads": [torch.zeros(4, 2)]}),
    "with the mean": _torch(lambda w: {"latents": w, "latent_avg": torch.zeros(w.shape[1:])}),
    "batch of batches": _torch(lambda w: w[None]),
    "half": _torch(lambda w: w.half()),
    "npy float64": _npy,
    "projector": _npz,
    "safetensors": _safetensors,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_codes_of_every_layout_come_back(
    kind: str, generator: MobileStyleGAN, codes: InvertedClip, tmp_path: Path
) -> None:
    found = load_codes(WRITERS[kind](tmp_path, codes.w_plus.numpy()), generator)
    torch.testing.assert_close(found.w_plus, codes.w_plus, atol=2e-3 if kind == "half" else 0, rtol=0)
    assert found.w_plus.dtype == torch.float32
    assert (found.family, found.generator_id) == (generator.family, generator.generator_id)
    assert found.times.tolist() == [0, 1 / 25, 2 / 25]
    assert found.report["notes"] == []


def test_w_codes_fill_all_rows(generator: MobileStyleGAN, tmp_path: Path) -> None:
    w = generator.map(torch.randn(5, generator.z_dim, generator=torch.Generator().manual_seed(1)))[:, 0]
    for shape in ((5, 16), (5, 1, 16)):
        np.save(tmp_path / "w.npy", w.reshape(shape).numpy())
        found = load_codes(tmp_path / "w.npy", generator).w_plus
        assert torch.equal(found, w[:, None].expand(5, generator.num_ws, 16))
    np.save(tmp_path / "w.npy", w[0].numpy())
    assert torch.equal(load_codes(tmp_path / "w.npy", generator).w_plus[0, 3], w[0])


def test_a_table_of_as_many_lines_as_rows_is_one_code_unless_said_otherwise(
    generator: MobileStyleGAN, tmp_path: Path
) -> None:
    table = torch.randn(generator.num_ws, 16, generator=torch.Generator().manual_seed(1)).numpy()
    np.save(tmp_path / "w.npy", table)
    assert load_codes(tmp_path / "w.npy", generator).w_plus.shape == (1, generator.num_ws, 16)
    assert load_codes(tmp_path / "w.npy", generator, layout=ONE_CODE).w_plus.shape == (1, generator.num_ws, 16)
    assert load_codes(tmp_path / "w.npy", generator, layout=W_CODES).w_plus.shape == (
        generator.num_ws,
        generator.num_ws,
        16,
    )
    np.save(tmp_path / "w.npy", table[:5])
    with pytest.raises(ValueError, match="have 5 rows, but this generator takes 1, 14 or 12"):
        load_codes(tmp_path / "w.npy", generator, layout=ONE_CODE)


def test_rows_of_the_other_architecture_are_moved_to_the_layers_that_they_drive(
    generator: MobileStyleGAN, tmp_path: Path
) -> None:
    rows = torch.arange(12.0)[:, None].expand(12, 16)
    torch.save(rows[None].repeat(2, 1, 1).clone(), tmp_path / "codes.pt")
    found = load_codes(tmp_path / "codes.pt", generator)
    assert found.w_plus[1, :, 0].tolist() == [0, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 9, 9]
    assert f"The 12 rows of {STYLEGAN2} were moved" in found.report["notes"][0]


def test_codes_far_from_all_faces_are_named(generator: MobileStyleGAN, codes: InvertedClip, tmp_path: Path) -> None:
    far = generator.w_avg + 30 * (codes.w_plus - generator.w_avg)
    np.save(tmp_path / "far.npy", far.numpy())
    found = load_codes(tmp_path / "far.npy", generator)
    assert "times as far from the mean face" in describe_codes(found)


def test_codes_of_another_width_are_refused(generator: MobileStyleGAN, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((3, 14, 512), np.float32))
    with pytest.raises(CheckpointError, match=r"codes of width 16, as this generator has them.*tensor \(3, 14, 512\)"):
        load_codes(tmp_path / "wide.npy", generator)


def test_frames_of_the_codes_follow_the_clip(generator: MobileStyleGAN, codes: InvertedClip, tmp_path: Path) -> None:
    aligned = _aligned(torch.rand(9, 32, 32, 3))
    np.save(tmp_path / "c.npy", codes.w_plus.numpy())
    found = load_codes(tmp_path / "c.npy", generator, FramesOfCodes(2, 3), aligned=aligned)
    assert found.frame_indices.tolist() == [2, 5, 8]
    assert np.array_equal(found.times, aligned.clip.frame_times[[2, 5, 8]])
    assert len(found.frame_times) == 9 and found.report["source"] == aligned.clip.clip_id
    with pytest.raises(ValueError, match="they reach frame 9, but the clip has 9 frames"):
        load_codes(tmp_path / "c.npy", generator, FramesOfCodes(3, 3), aligned=aligned)
    alone = load_codes(tmp_path / "c.npy", generator, FramesOfCodes(2, 3, Fraction(10)))
    assert alone.times.tolist() == [0.2, 0.5, 0.8]


def test_saved_codes_say_what_they_are_of(generator: MobileStyleGAN, codes: InvertedClip, tmp_path: Path) -> None:
    save_artifact(codes, tmp_path / "c.safetensors")
    with safe_open(tmp_path / "c.safetensors", "pt") as file:
        metadata = file.metadata()["dynode"]
    for fact in (f'"family": "{MOBILE}"', '"generator_id": "tiny0"', '"source": "a clip"'):
        assert fact in metadata
    found = load_codes(tmp_path / "c.safetensors", generator)
    assert torch.equal(found.w_plus, codes.w_plus) and np.array_equal(found.times, codes.times)
    assert "source clip: a clip" in describe_codes(found) and "note" not in describe_codes(found)
    other_clip = load_codes(tmp_path / "c.safetensors", generator, aligned=_aligned(torch.rand(5, 32, 32, 3)))
    assert "found for another clip" in describe_codes(other_clip)


def test_codes_of_every_frame_are_saved_though_their_times_are_those_of_the_clip(
    generator: MobileStyleGAN, codes: InvertedClip, tmp_path: Path
) -> None:
    every = replace(codes, times=codes.frame_times[:3], frame_times=codes.frame_times[:3])
    save_artifact(every, tmp_path / "c.safetensors")
    assert load_codes(tmp_path / "c.safetensors", generator).times.tolist() == every.times.tolist()


def test_saved_codes_of_the_other_architecture_leave_their_tuned_weights_behind(
    codes: InvertedClip, tmp_path: Path
) -> None:
    tuned = replace(codes, tuning=Tuning({"layers.0.conv1.bias": torch.zeros(16)}))
    save_artifact(tuned, tmp_path / "c.safetensors")
    made = tiny_stylegan2(128, STYLEGAN2)
    found = load_codes(tmp_path / "c.safetensors", made)
    assert found.tuning is None and found.family == STYLEGAN2
    assert torch.equal(found.w_plus[:, 1], codes.w_plus[:, 1])
    assert "left out" in describe_codes(found)


def test_codes_found_with_other_weights_are_named(codes: InvertedClip, tmp_path: Path) -> None:
    save_artifact(codes, tmp_path / "c.safetensors")
    other = tiny_mobile(seed=1)
    other.family = MOBILE
    assert "other weights of the same family" in describe_codes(load_codes(tmp_path / "c.safetensors", other))


def test_another_value_of_ours_is_refused_by_name(codes: InvertedClip, generator: Any, tmp_path: Path) -> None:
    w_plus = codes.w_plus
    sample = TrajectorySample(w_plus, w_plus, codes.times, codes.fps, codes.family, codes.generator_id)
    save_artifact(sample, tmp_path / "s.safetensors")
    with pytest.raises(ValueError, match="holds a sample"):
        load_codes(tmp_path / "s.safetensors", generator)


def test_files_without_codes_and_files_that_run_code_are_refused(generator: Any, golden: Any, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2, 16), "b": torch.zeros(3, 16)}, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match=r"It holds a \(2, 16\), b \(3, 16\)"):
        load_codes(tmp_path / "two.pt", generator)
    np.savez_compressed(tmp_path / "packed.npz", w=np.zeros((1, 14, 16)))
    with pytest.raises(CheckpointError, match="compressed"):
        load_codes(tmp_path / "packed.npz", generator)
    np.savez(tmp_path / "objects.npz", w=np.array([{}], dtype=object))
    with pytest.raises(RefusedCheckpointError):
        load_codes(tmp_path / "objects.npz", generator)
    with pytest.raises(FileNotFoundError):
        load_codes(tmp_path / "none.npy", generator)
    torch.save(torch.full((1, 14, 16), torch.nan), tmp_path / "nan.pt")
    with pytest.raises(ValueError, match="NaN"):
        load_codes(tmp_path / "nan.pt", generator)
    for name in ("malicious.pt", "malicious_object_array.npy"):
        with pytest.raises(RefusedCheckpointError):
            load_codes(golden(name), generator)


def test_pivots_of_a_real_file_are_read(golden: Any) -> None:
    path = golden("stit_pti_model_tiny.pt")
    state, config = tiny_stylegan2_state(32, w_dim=32)
    made = StyleGAN2(state, config, family="stylegan2-faces-32x8", generator_id="tiny")
    found = load_codes(path, made)
    assert torch.equal(found.w_plus, load_tensors(path)["pivots"].float())
    assert found.w_plus.shape == (5, 8, 32)
