"""The quality report: exact where answers are known, and sensitive to what it names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_pivotal import _scene
from tiny_generators import tiny_mobile

from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.faces.landmarks import Face
from dynode_pack.dynode_core.inversion.code_space import measure_code_space
from dynode_pack.dynode_core.metrics.editability import LOST, PROBES, Probe, ProbeEffect, mean_effect
from dynode_pack.dynode_core.metrics.frame_quality import (
    BETWEEN,
    KEYFRAME,
    Instruments,
    measure_code,
    measure_pair,
)
from dynode_pack.dynode_core.metrics.inversion_report import ReportSettings, report_inversion
from dynode_pack.dynode_core.metrics.jitter import shake
from dynode_pack.dynode_core.metrics.report_drawing import draw_report
from dynode_pack.dynode_core.metrics.report_text import report_facts, report_text
from dynode_pack.dynode_core.ode import TrajectorySettings, fit_trajectory
from dynode_pack.dynode_core.types import EditDirection


def _face(**shapes: float) -> Face:
    """A face with some blendshapes, by the names of probes."""
    blendshapes = np.zeros(52, np.float32)
    for name, value in shapes.items():
        blendshapes[list(PROBES[name.replace("_", " ")])] = value
    return Face(np.zeros((478, 2)), 1.0, blendshapes, np.zeros(3, np.float32))


def test_shake_is_zero_for_even_motion_and_tells_noise() -> None:
    times = np.array([0.0, 0.1, 0.3, 0.4, 0.9])
    assert shake(np.outer(times, [2.0, -1.0]) + 3, times) < 1e-12
    noise = np.random.default_rng(0).normal(0, 0.5, (4000, 2))
    assert shake(noise, np.arange(4000) / 25) == pytest.approx(0.5 * 1.5**0.5, rel=0.02)
    assert np.isnan(shake(noise[:2], np.arange(2)))


def test_shake_of_one_wrong_frame() -> None:
    values = np.zeros((5, 1))
    values[2] = 1.0
    assert shake(values, np.arange(5)) == pytest.approx(((0.25 + 1 + 0.25) / 3) ** 0.5)


def test_probe_effect_counts_what_it_names_and_what_it_does_not() -> None:
    probe = Probe(EditDirection("smile", torch.zeros(16), "ffhq-w"))
    before, after = _face(smile=0.1, mouth_open=0.0), _face(smile=0.6, mouth_open=0.5)
    effect = probe.effect(before, after, 1.0, 0.9)
    assert effect.gain == pytest.approx(0.5)
    assert effect.leak == pytest.approx(0.5 / 50)
    assert effect.kept == 0.9
    assert probe.effect(before, None, 1.0, 0.9) == LOST


def test_editability_is_one_for_what_sampled_faces_do_and_falls_with_each_fault() -> None:
    reference = ProbeEffect(0.5, 0.02, 0.9)
    assert reference.editability(reference) == 1
    assert ProbeEffect(0.8, 0.01, 0.95).editability(reference) == 1
    assert ProbeEffect(0.25, 0.02, 0.9).editability(reference) == pytest.approx(0.5)
    assert ProbeEffect(0.5, 0.04, 0.9).editability(reference) == pytest.approx(0.5)
    assert ProbeEffect(0.5, 0.02, 0.45).editability(reference) == pytest.approx(0.5)
    assert ProbeEffect(0.5, 0.02, float("nan")).editability(reference) == 1
    assert LOST.editability(reference) == 0
    assert ProbeEffect(-0.2, 0.02, 0.9).editability(reference) == 0
    assert mean_effect([reference, ProbeEffect(0.3, 0.04, 0.7)]) == ProbeEffect(
        pytest.approx(0.4), pytest.approx(0.03), pytest.approx(0.8)
    )
    assert mean_effect([]) is None


def test_a_face_that_smiles_already_is_probed_the_other_way() -> None:
    probe = Probe(EditDirection("smile", torch.ones(16), "ffhq-w"), 2.0)
    code = torch.zeros(14, 16)
    edited, sign = probe.edited(code, _face(smile=0.1), "mobile_stylegan-ffhq-128")
    assert sign == 1 and edited.max() == 2
    edited, sign = probe.edited(code, _face(smile=0.9), "mobile_stylegan-ffhq-128")
    assert sign == -1 and edited.min() == -2
    with pytest.raises(ValueError, match="A probe should be one of"):
        Probe(EditDirection("age", torch.ones(16), "ffhq-w"))


def test_code_columns_know_sampled_codes_and_the_rows() -> None:
    generator = tiny_mobile()
    space = measure_code_space(generator)
    sampled = generator.map(torch.randn(200, generator.z_dim, generator=torch.Generator().manual_seed(3)))
    found = [measure_code(code, space) for code in sampled]
    assert np.mean([f["from_mean"] for f in found]) == pytest.approx(1, abs=0.15)
    assert max(f["row_spread"] for f in found) < 1e-5
    assert measure_code(generator.w_avg.expand(14, -1), space)["from_mean"] < 1e-5
    mixed = torch.cat([sampled[0][:7], sampled[1][:7]])
    assert measure_code(mixed, space)["row_spread"] > 0.2


class _Pair:
    """Two pictures with the faces that a landmarker would have found."""

    def __init__(self, crop: torch.Tensor, image: torch.Tensor, crop_face: Any, image_face: Any) -> None:
        self.crop, self.image, self.crop_face, self.image_face = crop, image, crop_face, image_face
        self.crop_bytes = self.image_bytes = np.zeros((64, 64, 3), np.uint8)


def test_pair_columns_are_exact() -> None:
    crop = torch.zeros(1, 3, 64, 64)
    wanted = Face(np.zeros((478, 2)), 1.0, _face(mouth_open=0.7).blendshapes, np.array([3.0, 0, 0], np.float32))
    values = measure_pair(_Pair(crop, crop + 0.2, wanted, _face()), Instruments())
    assert values["mse"] == pytest.approx(0.01, rel=1e-4)
    assert values["mouth"] == pytest.approx(0.7)
    assert values["eyes"] == values["smile"] == 0
    assert values["blendshapes"] == pytest.approx(0.7 / 52)
    assert values["pose_deg"] == pytest.approx(1.0)
    same = measure_pair(_Pair(crop, crop, wanted, None), Instruments())
    assert same["mse"] == 0 and same["ssim"] == pytest.approx(1)
    assert "mouth" not in same and np.isnan(same["identity"])


@pytest.fixture(scope="module")
def scene() -> tuple[Any, Any, Any]:
    generator = tiny_mobile()
    return (generator, *_scene(generator, frames=9))


def test_report_of_keyframes_and_of_frames_between(scene: tuple[Any, Any, Any]) -> None:
    generator, aligned, every = scene
    index = np.array([0, 4, 8])
    codes = replace(every, w_plus=every.w_plus[index], times=every.times[index], frame_indices=index, loss=np.zeros(3))
    trajectory = fit_trajectory(codes, TrajectorySettings(check_held_out=False))
    done = []
    report = report_inversion(
        aligned,
        codes,
        generator,
        Instruments(),
        ReportSettings(size=64, between=4),
        trajectory=trajectory,
        progress=lambda *step: done.append(step[:2]),
    )
    kinds = {frame.frame: frame.kind for frame in report.frames}
    assert [frame for frame, kind in kinds.items() if kind == KEYFRAME] == [0, 4, 8]
    assert [frame for frame, kind in kinds.items() if kind == BETWEEN] == [1, 3, 5, 7]
    assert list(kinds) == sorted(kinds)
    assert done == [(i + 1, 7) for i in range(7)]
    with torch.no_grad():
        picture = generator.synthesize(codes.w_plus[1:2], size=64).clamp(-1, 1)
    expected = (picture - crop_clip(aligned, [4], 64)).square().mean().item() / 4
    assert next(frame for frame in report.frames if frame.frame == 4).mse == pytest.approx(expected, rel=1e-5)
    text, facts = report_text(report), json.dumps(report_facts(report))
    assert "mean of 3 keyframe" in text and "mean of 4 between" in text and "perceptual distance: none" in text
    assert "NaN" not in facts and json.loads(facts)["means"]["keyframe"]["identity"] is None
    drawn = draw_report(report)
    assert drawn.dtype == np.uint8 and drawn.ndim == 3 and drawn.std() > 10


def test_exact_codes_have_no_error_and_tuned_weights_count(scene: tuple[Any, Any, Any]) -> None:
    from tiny_generators import other_person

    generator, aligned, codes = scene
    person = replace(codes, tuning=other_person(generator))
    right = report_inversion(aligned, person, generator, Instruments(), ReportSettings(size=64, keyframes=2))
    wrong = report_inversion(aligned, codes, generator, Instruments(), ReportSettings(size=64, keyframes=2))
    assert [frame.frame for frame in right.frames] == [0, 8]
    assert right.mean(KEYFRAME, "mse") < 1e-4 < 0.1 * wrong.mean(KEYFRAME, "mse")
    assert right.mean(KEYFRAME, "ssim") > 0.99 > wrong.mean(KEYFRAME, "ssim")
    assert np.isnan(right.mean(BETWEEN, "mse"))


def test_report_warns_of_an_embedder_that_was_optimised_and_of_another_clip(scene: tuple[Any, Any, Any]) -> None:
    class Flatterer:
        name = "sface"

    generator, aligned, codes = scene
    suspect = replace(codes, report={"identity": "sface", "source": "another"})
    probe = EditDirection("smile", torch.zeros(512), "ffhq-w")
    instruments: Any = Instruments(identity=Flatterer())
    settings = ReportSettings(size=64, keyframes=1)
    report = report_inversion(aligned, suspect, generator, instruments, settings, probe=probe)
    text = report_text(report)
    assert "was part of the loss" in text and "another clip" in text and "does not fit this generator" in text
    with pytest.raises(ValueError, match="family"):
        report_inversion(aligned, replace(codes, family="other"), generator, Instruments())


def test_lpips_equals_the_package() -> None:
    lpips = pytest.importorskip("lpips")
    from dynode_pack.dynode_core.inversion.lpips import Lpips

    torch.manual_seed(0)
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    backbone = {}
    numbers = ("slice1.0", "slice2.3", "slice3.6", "slice4.8", "slice5.10")
    for name in numbers:
        for kind in ("weight", "bias"):
            backbone[f"features.{name.split('.')[1]}.{kind}"] = theirs.net.state_dict()[f"{name}.{kind}"]
    linear = {f"lin{i}.model.1.weight": getattr(theirs, f"lin{i}").model[1].weight.detach() for i in range(5)}
    ours = Lpips(backbone, linear)
    a, b = torch.rand(2, 2, 3, 96, 96) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(a, b), theirs(a, b).flatten(), rtol=1e-5, atol=1e-6)
        assert float(ours(a, a).abs().max()) < 1e-9
    with pytest.raises(ValueError, match="LPIPS lack"):
        Lpips({}, linear)


def test_lpips_is_used_only_if_both_of_its_files_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dynode_pack.dynode_core.inversion.lpips import find_lpips

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("DYNODE_MODELS", raising=False)
    linear, backbone = tmp_path / "lpips_alex.pth", tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    linear.touch()
    assert find_lpips([tmp_path]) is None
    backbone.parent.mkdir(parents=True)
    backbone.touch()
    assert find_lpips([tmp_path]) == (backbone, linear)
    monkeypatch.setenv("DYNODE_MODELS", str(tmp_path / "models"))
    nearer = tmp_path / "models" / "lpips" / backbone.name
    nearer.parent.mkdir(parents=True)
    nearer.touch()
    assert find_lpips([tmp_path]) == (nearer, linear)
