"""Comparing a fitted clip with morphing and frame-by-frame work on keyframes that were held out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from problems import FAMILY, aligned_clip, inverted_clip, jitter, smooth_codes
from tiny_generators import TINY_FAMILY, tiny_mobile

from dynode_pack.dynode_core import cli
from dynode_pack.dynode_core.artifacts import plain_facts, save_artifact
from dynode_pack.dynode_core.comparison import (
    METHODS,
    CompareSettings,
    Comparison,
    HoldOut,
    compare_paths,
    draw_comparison,
    picture_sources,
    report_text,
)
from dynode_pack.dynode_core.comparison.codes import acceleration
from dynode_pack.dynode_core.metrics.reconstruction import mean_square_error, structural_similarity
from dynode_pack.dynode_core.ode import GradientSettings, TrajectorySettings, fit_trajectory, train_trajectory
from dynode_pack.dynode_core.rendering import render
from dynode_pack.dynode_core.types import EditedLatent, InvertedClip, LatentTrajectory
from dynode_pack.dynode_core.video import FileClip, TensorClip, VideoWriter

OURS, ALONE, LINEAR, SPLINE, EACH = METHODS
INTERPOLATING = TrajectorySettings(reference="natural cubic", check_held_out=False, cuts="none")


def interpolating(part: InvertedClip) -> LatentTrajectory:
    """A fit that follows the codes exactly, so that the expected numbers are known."""
    return fit_trajectory(part, INTERPOLATING)


def straight_clip(count: int = 9) -> InvertedClip:
    way = np.random.default_rng(0).standard_normal((1, 3, 8))
    return inverted_clip(1 + np.linspace(0, 1, count)[:, None, None] * way, np.arange(count) / 25)


def column(comparison: Comparison, name: str) -> dict[str, float]:
    return {method: float(row[name]) for method, row in comparison.table.items()}


def test_kept_keyframes_hold_the_ends_and_are_the_same_for_the_same_seed() -> None:
    assert HoldOut(2).kept(9).tolist() == [0, 2, 4, 6, 8]
    assert HoldOut(4).kept(11).tolist() == [0, 4, 8, 10]
    picked = HoldOut(3, irregular=True, seed=1).kept(31)
    assert len(picked) == 11 and picked[0] == 0 and picked[-1] == 30 and len(set(np.diff(picked))) > 1
    assert np.array_equal(picked, HoldOut(3, irregular=True, seed=1).kept(31))
    with pytest.raises(ValueError, match="at least 5 keyframes"):
        HoldOut().kept(4)


def test_on_a_straight_line_every_method_is_exact() -> None:
    found = compare_paths(straight_clip(), interpolating)
    assert max(column(found, "held_out").values()) < 1e-4
    assert max(column(found, "observed").values()) < 1e-4
    assert max(column(found, "acceleration").values()) < 1e-2


def test_errors_of_a_known_curve_are_those_of_theory() -> None:
    """On a circle sampled every h the chord misses the arc by 1 - cos(h / 2); splines come far closer."""
    step = 0.2
    angles = np.arange(33) * step / 2
    codes = np.zeros((33, 2, 4))
    codes[:, 0, 0], codes[:, 1, 2] = np.cos(angles), np.sin(angles)
    found = compare_paths(inverted_clip(codes, np.arange(33) / 25), interpolating)
    errors = column(found, "held_out")
    assert errors[LINEAR] == pytest.approx(1 - np.cos(step / 2), rel=1e-3)
    assert errors[SPLINE] < 0.2 * errors[LINEAR]
    assert errors[OURS] == pytest.approx(errors[SPLINE], rel=0.05)
    assert errors[EACH] == 0.0
    held = ~found.paths.kept
    assert found.by_frame[LINEAR][held] == pytest.approx(1 - np.cos(step / 2), rel=1e-3)
    assert found.by_frame[LINEAR][~held].max() < 1e-6
    assert found.ratio_to_linear == pytest.approx(errors[OURS] / errors[LINEAR])


def test_a_few_keyframes_of_calm_motion_are_joined_better_by_the_trajectory_than_by_morphing() -> None:
    clip = inverted_clip(smooth_codes(41), np.arange(41) / 25)
    found = compare_paths(
        clip,
        lambda part: fit_trajectory(part, TrajectorySettings(check_held_out=False)),
        CompareSettings(HoldOut(4)),
    )
    errors = column(found, "held_out")
    assert errors[OURS] < errors[SPLINE] < errors[LINEAR]
    assert found.ratio_to_linear < 0.2


def test_trembling_codes_are_predicted_better_by_the_smooth_path_than_by_morphing() -> None:
    clean = smooth_codes(120, rows=2, channels=24)
    noisy = clean + 0.3 * jitter(120, 48, correlation=0.0).reshape(clean.shape)
    found = compare_paths(
        inverted_clip(noisy, np.arange(120) / 25),
        lambda part: fit_trajectory(part, TrajectorySettings(check_held_out=False, cuts="none")),
    )
    errors, shake = column(found, "held_out"), column(found, "acceleration")
    assert errors[ALONE] < 0.9 * errors[LINEAR] < 0.9 * errors[SPLINE]
    assert shake[ALONE] < 0.1 * shake[EACH]


def test_acceleration_of_a_parabola_is_exact_at_uneven_times_and_leaves_cuts_out() -> None:
    times = np.array([0.0, 0.1, 0.3, 0.35, 0.6])
    codes = torch.from_numpy(3 * times**2)[:, None, None]
    assert acceleration(codes, times, np.empty(0)) == pytest.approx(6 * np.diff(times).mean() ** 2)
    codes[3:] += 100
    assert acceleration(codes, times, np.array([0.32])) == pytest.approx(6 * np.diff(times).mean() ** 2)


def test_nothing_is_blended_across_a_cut() -> None:
    codes = np.concatenate([np.zeros((8, 2, 4)), np.full((8, 2, 4), 50.0)])
    codes += smooth_codes(16, rows=2, channels=4, axes=2)
    settings = dataclasses.replace(INTERPOLATING, cuts=(7.5 / 25,))
    found = compare_paths(inverted_clip(codes, np.arange(16) / 25), lambda part: fit_trajectory(part, settings))
    assert found.facts()["cuts_s"] == [7.5 / 25]
    assert max(column(found, "held_out").values()) < 0.02


def test_morphing_heeds_cuts_that_the_fit_does_not_know() -> None:
    """A path told to heed no cuts is one curve; morphing keeps to the shots that FrameAlign saw, or the codes show."""
    codes = np.concatenate([np.zeros((8, 2, 4)), np.full((8, 2, 4), 50.0)])
    codes += smooth_codes(16, rows=2, channels=4, axes=2)
    clip = inverted_clip(codes, np.arange(16) / 25)
    seen = dataclasses.replace(clip, cuts_s=np.array([7.5 / 25]))

    def trained(part: InvertedClip) -> LatentTrajectory:
        return train_trajectory(part, GradientSettings(steps=1, hidden=8, cuts="none"))

    found = compare_paths(seen, trained)
    assert found.facts()["cuts_s"] == [7.5 / 25]
    assert max(found.table[name]["held_out"] for name in (LINEAR, SPLINE)) < 0.02 < found.table[OURS]["held_out"]
    assert "WARNING: With cuts at 'none' the path is one curve" in report_text(found)
    assert compare_paths(clip, trained).facts()["cuts_s"] == pytest.approx([7 / 25])  # between kept 6 and 8
    assert compare_paths(seen, interpolating).table[LINEAR]["held_out"] < 0.02


def test_an_edit_is_measured_against_the_same_edit_of_every_frame() -> None:
    clip = inverted_clip(smooth_codes(17, rows=2, channels=12), np.arange(17) / 25)
    change = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    latent = EditedLatent(5 + change, torch.full_like(change, 5.0), ("smile=3",), FAMILY)
    plain, edited = (compare_paths(clip, interpolating, latent=one) for one in (None, latent))
    assert edited.carried is not None and plain.carried is None
    assert edited.carried["cosine"] > 0.9999
    assert 0.999 < edited.carried["size_low"] <= edited.carried["size_high"] < 1.001
    assert torch.allclose(edited.paths.truth - plain.paths.truth, change.expand(17, -1, -1), atol=1e-5)
    assert column(edited, "codes_edited") == {OURS: 1, ALONE: 1, LINEAR: 9, SPLINE: 9, EACH: 17}
    assert column(plain, "codes_edited") == dict.fromkeys(METHODS, 0)
    assert column(plain, "codes_inverted") == {OURS: 9, ALONE: 9, LINEAR: 9, SPLINE: 9, EACH: 17}
    assert "Edited: smile=3." in report_text(edited) and "without edit_limit" in report_text(edited)
    stranger = dataclasses.replace(latent, family="another")
    with pytest.raises(ValueError, match="family"):
        compare_paths(clip, interpolating, latent=stranger)


def test_an_edit_that_changes_nothing_is_not_said_to_be_carried_badly() -> None:
    clip = inverted_clip(smooth_codes(9, rows=2, channels=12), np.arange(9) / 25)
    found = compare_paths(clip, interpolating, latent=EditedLatent(clip.w_plus[0], clip.w_plus[0], ("a=0",), FAMILY))
    assert found.carried is None and found.facts()["carried_edit"] is None
    assert "cosine" not in report_text(found) and "Edited: a=0." in report_text(found)


def test_pictures_have_the_side_of_a_small_generator() -> None:
    generator = tiny_mobile()
    codes = 0.1 * smooth_codes(9, rows=generator.num_ws, channels=generator.w_dim, axes=3)
    clip = dataclasses.replace(inverted_clip(codes, np.arange(9) / 25), family=TINY_FAMILY)
    frames = torch.rand(9, 96, 96, 3, generator=torch.Generator().manual_seed(0))
    sources = picture_sources(clip, generator, 512, aligned_clip(TensorClip(frames, 25)))
    assert sources.actual is not None
    side = generator.resolution
    assert side < 512 and sources.actual([8, 1]).shape == (2, 3, side, side)
    found = compare_paths(
        clip, interpolating, CompareSettings(pictures=1), render=sources.render, actual=sources.actual
    )
    assert found.pictures is not None and found.pictures.tiles["actual"].shape == (1, side, side, 3)
    assert picture_sources(clip, generator, 64).render(clip.w_plus[:1], clip.times[:1]).shape == (1, 3, 64, 64)
    with pytest.raises(ValueError, match="reach frame 8, but the aligned clip has 5 frames"):
        picture_sources(clip, generator, 64, aligned_clip(TensorClip(frames[:5], 25)))
    with pytest.raises(ValueError, match="family"):
        picture_sources(dataclasses.replace(clip, family="another"), generator, 64)


def test_the_command_line_shows_the_fit_and_refuses_another_clip(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, film, aligned = (str(tmp_path / name) for name in ("c.safetensors", "film.mp4", "a.safetensors"))
    times = np.arange(9) / 25
    save_artifact(inverted_clip(smooth_codes(9, rows=2, channels=8, axes=3), times, frame_times=times.copy()), codes)
    with VideoWriter(Path(film), Fraction(25), (48, 64)) as writer:
        writer.write(torch.rand(5, 48, 64, 3, generator=torch.Generator().manual_seed(0)))
    save_artifact(aligned_clip(FileClip(film)), aligned)
    asked = ["compare", codes, "--out", str(tmp_path / "r.json"), "--pictures", "0", "--device", "cpu"]
    assert cli.main([*asked, "--aligned", aligned]) == 2
    said = capsys.readouterr().err
    assert "reach frame 8, but the aligned clip has 5 frames" in said and "compare" not in said
    assert cli.main(asked) == 0
    assert "compare  4/4" in capsys.readouterr().err
    training = ["--fit", "paper", "--steps", "2", "--hidden", "8", "--cache", str(tmp_path / "cache")]
    assert cli.main([*asked, *training]) == 0
    assert "compare  2/2" in capsys.readouterr().err


def test_pictures_are_compared_with_the_frames_of_the_clip() -> None:
    generator = tiny_mobile()
    with torch.no_grad():
        ends = generator.map(torch.randn(2, generator.z_dim, generator=torch.Generator().manual_seed(3)))
    way = 3 * (ends[1] - ends[0])
    shares = np.sin(np.linspace(0, np.pi, 9))
    codes = torch.stack([ends[0] + float(share) * way for share in shares])
    clip = dataclasses.replace(inverted_clip(codes, np.arange(9) / 25), family=TINY_FAMILY)
    frames = render(generator, codes, size=64)
    asked: list[int] = []

    def actual(indices: list[int]) -> torch.Tensor:
        asked.extend(indices)
        return frames[indices]

    seen: list[int] = []
    settings = CompareSettings(pictures=3)
    found = compare_paths(
        clip,
        interpolating,
        settings,
        render=lambda one, times: render(generator, one, size=64),
        actual=actual,
        progress=lambda done, total, preview=None: seen.append(done),
    )
    assert found.pictures is not None and found.pictures.against == "the clip's own frames"
    assert seen == [1, 2, 3, 4, 5, 6] and len(asked) == 6
    assert asked == [0, 4, 8, 1, 5, 7]
    assert column(found, "mse_observed") == pytest.approx(dict.fromkeys(METHODS, 0.0), abs=1e-6)
    errors, likeness = column(found, "mse_held_out"), column(found, "ssim_held_out")
    assert errors[EACH] < 1e-10 and likeness[EACH] > 1 - 1e-6
    assert errors[OURS] < errors[LINEAR] and likeness[OURS] > likeness[LINEAR]
    expected = mean_square_error(
        *(
            (render(generator, w, size=64) + 1) / 2
            for w in (found.paths.codes(LINEAR, np.array([1, 5, 7])), codes[[1, 5, 7]])
        )
    )
    assert errors[LINEAR] == pytest.approx(float(expected.mean()), rel=1e-3)
    assert found.pictures.tiles["actual"].shape == (3, 64, 64, 3)
    report = report_text(found)
    assert "MSE x 1e-3 and SSIM x 100" in report and report.count(LINEAR) == 3
    picture = draw_comparison(found)
    assert picture.dtype == np.uint8 and picture.shape[1:] == (1200, 3)
    assert picture.shape[0] > draw_comparison(dataclasses.replace(found, pictures=None)).shape[0] + 800
    assert json.loads(json.dumps(plain_facts(found.facts())))["pictures_compared_with"] == "the clip's own frames"


def test_structural_similarity_is_that_of_the_reference(golden: Callable[[str], Path]) -> None:
    from safetensors.torch import load_file

    kept = load_file(golden("metrics.safetensors"))
    x, y = (kept[name].permute(2, 0, 1)[None].double() / 255 for name in ("img.x", "img.y"))
    assert float(mean_square_error(x, y)) == pytest.approx(float(kept["mse.range0_1"]), rel=1e-6)
    wanted = float(kept["ssim.wang_gaussian_sigma1.5_rgb_mean"])
    assert float(structural_similarity(x, y)) == pytest.approx(wanted, rel=1e-5)
    assert float(structural_similarity(x, x)) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        structural_similarity(x[..., :8], y[..., :8])
    with pytest.raises(ValueError, match="one shape"):
        mean_square_error(x, y[..., :8])
