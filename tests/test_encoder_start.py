"""Inversion that starts from the guess of an e4e, pSp or ReStyle encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from test_inversion import _clip_of
from tiny_generators import tiny_mobile, tiny_mobile_state

from dynode_pack.dynode_core import cli
from dynode_pack.dynode_core.checkpoints.load import load_generator
from dynode_pack.dynode_core.faces.crop import crop_clip
from dynode_pack.dynode_core.families import row_map
from dynode_pack.dynode_core.generators.mobile_stylegan import MobileStyleGAN
from dynode_pack.dynode_core.inversion import InversionSettings, invert_clip
from dynode_pack.dynode_core.inversion.encoders import StyleEncoder, load_encoder
from dynode_pack.dynode_core.inversion.encoders.networks import EncoderNetwork
from dynode_pack.dynode_core.inversion.first_guess import first_guess
from dynode_pack.dynode_core.inversion.settings import FIRST_GUESS
from dynode_pack.dynode_core.video import VideoWriter

Golden = Callable[[str], Path]
FILE = "e4e_tiny.pt"
"""A generator of 32 px and an encoder for it, 8 rows of 16."""


@pytest.fixture
def generator(golden: Golden, tmp_path: Path) -> Any:
    return load_generator(golden(FILE), cache_dir=tmp_path)


@pytest.fixture
def encoder(golden: Golden) -> StyleEncoder:
    return load_encoder(golden(FILE))


def test_the_first_guess_of_every_keyframe_is_the_code_of_the_encoder(generator: Any, encoder: StyleEncoder) -> None:
    aligned, _ = _clip_of(generator, 5)
    settings = InversionSettings(FIRST_GUESS, keyframe_every=2)
    shown = []
    found = invert_clip(
        aligned, generator, settings, perceptual=None, encoder=encoder, progress=lambda *step: shown.append(step)
    )
    crops = crop_clip(aligned, found.frame_indices, 32)
    torch.testing.assert_close(found.w_plus, encoder.encode(crops), rtol=1e-4, atol=1e-4)
    assert found.report["start"].startswith("Encoder4Editing") and found.tuning is None
    assert torch.isfinite(torch.tensor(found.loss)).all() and len(set(found.loss)) == 3
    assert shown[-1][0] == shown[-1][1] and shown[-1][2] is not None


def test_a_search_that_starts_at_the_encoders_code_ends_better_than_there(
    generator: Any, encoder: StyleEncoder, tmp_path: Path
) -> None:
    aligned, _ = _clip_of(generator, 3)

    def loss_of(quality: str, **options: Any) -> float:
        settings = InversionSettings(quality, keyframe_every=2)
        return float(invert_clip(aligned, generator, settings, perceptual=None, cache_dir=tmp_path, **options).loss[0])

    guessed = loss_of(FIRST_GUESS, encoder=encoder)
    assert loss_of("draft", encoder=encoder) < 0.8 * guessed
    assert loss_of(FIRST_GUESS) != guessed, "what was kept of one start was taken for another"


def test_codes_of_an_encoder_are_mapped_to_the_distilled_generator(golden: Golden) -> None:
    data = torch.load(golden(FILE), weights_only=True)["state_dict"]
    state = {name.removeprefix("encoder."): value for name, value in data.items() if name.startswith("encoder.")}
    for row in range(8, 18):
        state |= {name.replace("styles.7.", f"styles.{row}."): x for name, x in state.items() if "styles.7." in name}
    network = EncoderNetwork(state, "Encoder4Editing")
    encoder = StyleEncoder(network, torch.rand(18, 16), family="stylegan2-ffhq-1024x18", encoder_id="a")
    mobile = MobileStyleGAN(tiny_mobile_state(num_layers=7), family="mobile_stylegan-ffhq-1024", generator_id="b")
    face = torch.rand(1, 3, 256, 256) * 2 - 1
    rows = row_map(encoder.family, mobile.family)
    assert rows is not None
    guess = first_guess(_clip_of(tiny_mobile(), 2)[0], mobile, encoder)
    torch.testing.assert_close(guess.code_of(face, 0), encoder.encode(face)[:, list(rows)])
    assert guess.shifts == {} and guess.name == "Encoder4Editing a"


def test_an_encoder_of_other_codes_is_refused_before_any_work(encoder: StyleEncoder) -> None:
    generator = tiny_mobile()
    with pytest.raises(ValueError, match="8 x 16, but the generator takes 14 x 16.*trained for"):
        invert_clip(
            _clip_of(generator, 3)[0], generator, perceptual=None, encoder=encoder, progress=lambda *_: pytest.fail()
        )


@pytest.mark.weights
def test_the_command_line_starts_from_an_encoder(golden: Golden, tmp_path: Path, generator: Any) -> None:
    frames = _clip_of(generator, 4)[0].clip.read([0, 1, 2, 3])
    with VideoWriter(tmp_path / "film.mp4", 10, (frames.shape[1], frames.shape[2])) as writer:
        writer.write(frames)
    base = ["run", str(tmp_path / "film.mp4"), "--framing", "centre crop", "--generator", str(golden(FILE))]
    base += ["--quality", FIRST_GUESS, "--device", "cpu", "--cache", str(tmp_path), "--quiet", "--no-sound"]
    base += ["--out", str(tmp_path / "out.mp4"), "--report", str(tmp_path / "report.json")]
    assert cli.main([*base, "--encoder", str(golden(FILE))]) == 0
    assert '"start": "Encoder4Editing' in (tmp_path / "report.json").read_text()
    assert cli.main([*base, "--encoder", str(tmp_path / "none.pt")]) != 0


@pytest.mark.comfy
@pytest.mark.weights
def test_the_node_loads_an_encoder_for_the_inversion(
    golden: Golden, node_module: Callable[[str], ModuleType], generator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, folders = node_module("load_encoder"), node_module("model_folders")
    monkeypatch.setattr(folders, "full_path", lambda kind, name: golden(name))
    monkeypatch.setattr(folders, "cache_dir", lambda name: None)
    loaded = node_module("devices").hold_generator(generator)
    aligned, _ = _clip_of(generator, 3)
    with torch.inference_mode():  # as ComfyUI does it
        (encoder,) = node.LoadEncoder.execute(FILE).result
        found, _ = (
            node_module("invert")
            .Invert.execute(aligned, loaded, FIRST_GUESS, 1, 0, 0.0, 0, True, encoder=encoder)
            .result
        )
    assert found.report["start"].startswith("Encoder4Editing") and not found.w_plus.is_inference()
    assert node.LoadEncoder.fingerprint_inputs(FILE) is not None
    assert node.LoadEncoder.fingerprint_inputs(None) is None
    with pytest.raises(FileNotFoundError, match="models/stylegan2_encoders"):
        node.LoadEncoder.execute(node.NO_FILES)
