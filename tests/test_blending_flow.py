"""Frames between frames: close to the truth where the truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from dynode_pack.dynode_core.blending.background import Background
from dynode_pack.dynode_core.blending.flow import estimate_flow, frame_between
from dynode_pack.dynode_core.video import TensorClip

HEIGHT, WIDTH = 180, 240


def texture(seed: int, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 1, (400, 500, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
    return (blurred - blurred.min()) / (blurred.max() - blurred.min())


BACKGROUND, OBJECT = texture(0, 3), texture(1, 2)


def shifted(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    return cv2.warpAffine(picture, np.float32([[1, 0, x], [0, 1, y]]), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)


def scene(time: float) -> torch.Tensor:
    """A disc that moves 12 px to the right in front of a background that moves 3 px."""
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.circle(mask, (round(16 * (90 + 12 * time)), round(16 * (80 + 4 * time))), 45 * 16, 1, -1, cv2.LINE_AA, 4)
    mask = cv2.GaussianBlur(mask, (0, 0), 0.7)[..., None]
    behind, front = shifted(BACKGROUND, 3 * time - 40, -20), shifted(OBJECT, 12 * time - 100, 4 * time - 60)
    return torch.from_numpy(np.clip(behind * (1 - mask) + front * mask, 0, 1))


def psnr_db(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.75])
def test_a_moving_scene_is_met_in_the_middle(fraction: float) -> None:
    first, last, truth = scene(0), scene(1), scene(fraction)
    made = frame_between(first, last, estimate_flow(first, last), fraction)
    assert made.dtype == torch.float32 and made.shape == first.shape
    assert psnr_db(made, truth) > 38
    assert psnr_db(made, truth) > psnr_db(torch.lerp(first, last, fraction), truth) + 10
    strip = np.s_[60:100, 128:150]  # behind the front edge of the disc: seen in one frame only
    assert psnr_db(made[strip], truth[strip]) > 28


def test_frames_do_not_jump_when_the_time_nears_a_frame() -> None:
    first, last = scene(0), scene(1)
    flows = estimate_flow(first, last)
    assert psnr_db(frame_between(first, last, flows, 1e-3), first) > 42
    assert psnr_db(frame_between(first, last, flows, 1 - 1e-3), last) > 42


def test_a_still_scene_stays_as_it_is() -> None:
    first = scene(0)
    made = frame_between(first, first, estimate_flow(first, first), 0.5)
    np.testing.assert_allclose(made, first, atol=1e-5)


def test_a_cut_is_not_blended() -> None:
    first = torch.from_numpy(shifted(BACKGROUND, 0, 0))
    last = torch.from_numpy(np.ascontiguousarray(1 - shifted(OBJECT, -50, -50)[::-1]))
    flows = estimate_flow(first, last)
    assert flows.is_cut
    assert torch.equal(frame_between(first, last, flows, 0.4), first)
    assert torch.equal(frame_between(first, last, flows, 0.6), last)
    assert not estimate_flow(scene(0), scene(1)).is_cut


def test_large_frames_are_handled_at_reduced_size(monkeypatch: pytest.MonkeyPatch) -> None:
    import dynode_pack.dynode_core.blending.flow as flow

    monkeypatch.setattr(flow, "FLOW_SIDE_PX", 120)
    first, last, truth = scene(0), scene(1), scene(0.5)
    flows = estimate_flow(first, last)
    assert flows.forward.shape == (90, 120, 2)
    assert psnr_db(frame_between(first, last, flows, 0.5), truth) > 33


def test_tiny_frames_work() -> None:
    first, last = torch.rand(9, 7, 3), torch.rand(9, 7, 3)
    assert frame_between(first, last, estimate_flow(first, last), 0.3).shape == (9, 7, 3)


def test_each_pair_is_estimated_once_and_exact_frames_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    import dynode_pack.dynode_core.blending.background as background

    frames = torch.stack([scene(0), scene(1), scene(2)])
    pairs: list[int] = []

    def counted(a: torch.Tensor, b: torch.Tensor) -> object:
        pairs.append(1)
        return estimate_flow(a, b)

    monkeypatch.setattr(background, "estimate_flow", counted)
    source = Background(TensorClip(frames, 25), "flow")
    for index in (0, 1):
        for fraction in (0.0, 0.25, 0.5, 0.75):
            frame = source.at(index, fraction)
            if fraction == 0:
                assert torch.equal(frame, frames[index])
    assert len(pairs) == 2
    assert len(source._frames) <= 3
