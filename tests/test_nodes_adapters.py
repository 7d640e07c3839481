"""What the nodes add to the core: ComfyUI's tensors, videos, progress, memory and model folders."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.comfy
FRAMES, SIDE = 10, 32


@pytest.fixture
def film(tmp_path: Path) -> Path:
    from dynode_pack.dynode_core.video import VideoWriter

    path = tmp_path / "film.mp4"
    with VideoWriter(path, Fraction(25), (SIDE, SIDE)) as writer:
        writer.write(torch.rand(FRAMES, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0)))
    return path


class SmallGenerator(torch.nn.Module):
    """As much of a generator as the model manager touches."""

    generator_id, family, resolution = "0123", "test-family", 16

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("w_avg", torch.zeros(4))

    @property
    def device(self) -> torch.device:
        return self.w_avg.device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x + self.w_avg)


def test_nodes_make_ordinary_tensors(node_module: Callable[[str], ModuleType]) -> None:
    devices = node_module("devices")
    with torch.inference_mode():
        made = devices.outside_inference_mode(lambda: torch.ones(2))()
        assert torch.ones(2).is_inference()
    assert not made.is_inference()


def test_generator_gives_gradients_after_other_nodes_moved_it(node_module: Callable[[str], ModuleType]) -> None:
    devices = node_module("devices")
    loaded = devices.hold_generator(SmallGenerator())
    with torch.inference_mode():
        loaded.patcher.model.double()  # what moving between devices does to weights, on a machine with one device
        with torch.inference_mode(False):
            generator = loaded.ready()
            x = torch.ones(1, 4, dtype=torch.float64, requires_grad=True)
            generator(x).sum().backward()
    assert x.grad is not None and bool(x.grad.any())
    assert not any(p.requires_grad for p in generator.parameters())


class CrampedGenerator(SmallGenerator):
    """Runs out of memory with more than two codes at once."""

    num_ws, w_dim = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def synthesize(self, w_plus: torch.Tensor, *, size: int | None = None) -> torch.Tensor:
        self.batches.append(len(w_plus))
        if len(w_plus) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return w_plus.mean(dim=(1, 2))[:, None, None, None].expand(-1, 3, size, size)


def test_render_takes_smaller_chunks_when_memory_runs_out(node_module: Callable[[str], ModuleType]) -> None:
    from dynode_pack.dynode_core.types import TrajectorySample

    generator = CrampedGenerator()
    codes = torch.arange(5.0)[:, None, None].expand(5, 2, 4).clone()
    sample = TrajectorySample(codes, codes + 10, np.arange(5) / 5, Fraction(5), "test-family", "0123")
    faces = node_module("render").ManagedFaces(node_module("devices").hold_generator(generator), sample, 8, chunk=8)
    assert faces.read(0, 5)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert faces.read_base(1, 3)[:, 0, 0, 0].tolist() == [11, 12]
    assert generator.batches[:5] == [5, 4, 2, 2, 1]


def test_previews_are_throttled_and_steps_are_not_lost(
    node_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = importlib.import_module("comfy.utils")
    seen: list[tuple[int, int, Any]] = []
    monkeypatch.setattr(
        utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, node_id=None: seen.append((value, total, preview))
    )
    clock = iter(np.arange(200) / 100)
    progress_module = node_module("progress")
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: float(next(clock)))
    progress = progress_module.NodeProgress()
    for done in range(1, 101):
        progress(done, 100, np.zeros((8, 8, 3), np.uint8))
    assert sum(preview is not None for _, _, preview in seen) <= 5
    assert seen[-1][:2] == (100, 100)


def test_cancel_is_heard_at_the_next_step(node_module: Callable[[str], ModuleType]) -> None:
    management = importlib.import_module("comfy.model_management")
    progress = node_module("progress").NodeProgress()
    progress(1, 10)
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        progress(2, 10)


def test_sheet_puts_tiles_side_by_side(node_module: Callable[[str], ModuleType]) -> None:
    tiles = [np.full((20, 30, 3), value, np.uint8) for value in (0, 51, 102, 255)]
    sheet = node_module("pictures").sheet(tiles, columns=3)
    assert sheet.shape == (1, 40, 90, 3)
    assert [float(sheet[0, 5, x, 0]) for x in (15, 45, 75)] == pytest.approx([0.0, 0.2, 0.4])
    assert float(sheet[0, 25, 15, 0]) == 1.0
    assert float(sheet[0, 25, 45, 0]) == 0.0


def test_pictures_that_do_not_fit_are_refused(
    node_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = node_module("pictures")
    monkeypatch.setattr(pictures.comfy.model_management, "get_free_memory", lambda _device: 8 * 2**20)
    assert pictures.frames_wanted(pictures.FIRST, 10_000, 256, 256) == 1
    assert pictures.frames_wanted(pictures.ALL, 5, 256, 256) == 5
    with pytest.raises(ValueError, match="10000 frames of 256 x 256 as an IMAGE need .* Set picture_frames to"):
        pictures.frames_wanted(pictures.ALL, 10_000, 256, 256)


def test_frames_are_gathered_in_order(node_module: Callable[[str], ModuleType]) -> None:
    images = torch.rand(7, 3, 4, 4) * 2 - 1
    gathered = node_module("pictures").gather_faces(lambda a, b: images[a:b], 7, chunk=3)
    torch.testing.assert_close(gathered, (images.permute(0, 2, 3, 1) + 1) / 2)


def test_video_file_is_read_where_it_lies_and_only_the_trimmed_part(
    node_module: Callable[[str], ModuleType], film: Path
) -> None:
    latest = importlib.import_module("comfy_api.latest")
    clips = node_module("clips")
    whole = clips.clip_of(latest.InputImpl.VideoFromFile(str(film)), fps=1.0)
    assert (whole.path, whole.num_frames, whole.fps) == (film, FRAMES, 25)
    part = clips.clip_of(latest.InputImpl.VideoFromFile(str(film)).as_trimmed(0.08, 0.2), fps=1.0)
    assert part.num_frames == 5
    assert torch.equal(part.read([0]), whole.read([2]))


def test_video_in_memory_is_read_with_its_sound(node_module: Callable[[str], ModuleType], film: Path) -> None:
    latest = importlib.import_module("comfy_api.latest")
    clips = node_module("clips")
    from_bytes = clips.clip_of(latest.InputImpl.VideoFromFile(io.BytesIO(film.read_bytes())), fps=1.0)
    assert from_bytes.num_frames == FRAMES
    audio = {"waveform": torch.zeros(1, 2, 16000), "sample_rate": 16000}
    pictures = torch.rand(4, 8, 8, 3)
    parts = latest.Types.VideoComponents(images=pictures, audio=audio, frame_rate=Fraction(30000, 1001))
    clip = clips.clip_of(latest.InputImpl.VideoFromComponents(parts), fps=1.0)
    assert clip.fps == Fraction(30000, 1001)
    assert torch.equal(clip.read([1]), pictures[1:2])
    assert clip.path is not None and clip.path.stat().st_size > 0


@pytest.mark.parametrize(("rate", "written"), [(44100, 44100), (192000, 48000), (12345, 48000)])
def test_sound_of_any_rate_is_kept(node_module: Callable[[str], ModuleType], rate: int, written: int) -> None:
    import av

    waveform = torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate).expand(1, 2, -1).clone()
    waveform[0, 0, 5] = torch.nan
    path = node_module("clips").save_audio({"waveform": waveform, "sample_rate": rate})
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[1] for frame in container.decode(audio=0)])
        assert container.streams.audio[0].rate == written
    assert len(sound) / written == pytest.approx(1, abs=0.06)
    crossings = (np.diff(np.signbit(sound[written // 4 : written // 2])) != 0).sum()
    assert crossings == pytest.approx(220, abs=3)


def test_no_sound_is_no_file(node_module: Callable[[str], ModuleType]) -> None:
    clips = node_module("clips")
    assert clips.sound_clip({"waveform": torch.zeros(1, 2, 0), "sample_rate": 44100}).path is None


def test_what_comes_through_a_link_does_not_run_a_node_again(node_module: Callable[[str], ModuleType]) -> None:
    """ComfyUI asks with None for linked inputs; an error there counts as a change at every run."""
    assert node_module("load").LoadGenerator.fingerprint_inputs(generator_name=None, torch_compile=None) is None
    edit = node_module("edit").EditFirstLatent.fingerprint_inputs
    assert edit(direction=None, keep=None) == edit(direction=None, keep=None)


@pytest.mark.parametrize(
    ("module", "node"),
    [("report", "InversionReport"), ("compare", "CompareTrajectory"), ("preview_directions", "PreviewDirections")],
)
def test_nodes_that_only_show_something_run_with_nothing_linked_behind(
    node_module: Callable[[str], ModuleType], module: str, node: str
) -> None:
    assert getattr(node_module(module), node).GET_NODE_INFO_V1()["output_node"] is True


def test_pictures_play_at_the_given_rate(node_module: Callable[[str], ModuleType]) -> None:
    clips = node_module("clips")
    clip = clips.clip_of(torch.rand(3, 8, 8, 4), fps=29.97)
    assert (clip.num_frames, clip.fps, clip.read([0]).shape[-1]) == (3, Fraction(30000, 1001), 3)
    with pytest.raises(ValueError, match="empty"):
        clips.clip_of(torch.zeros(0, 8, 8, 3), fps=25.0)


@pytest.mark.parametrize(
    ("module", "node"), [("align", "FrameAlign"), ("latents", "MixLatents"), ("code_files", "LoadCodes"), ("solve", "")]
)
def test_rates_of_film_can_be_typed(node_module: Callable[[str], ModuleType], module: str, node: str) -> None:
    """The page rounds what is typed to the decimals of the step: 23.976 must stay what it is."""
    found = node_module(module)
    inputs = getattr(found, node).define_schema().inputs if node else [found._RATE]
    (rate,) = [given for given in inputs if given.id == "fps"]
    assert rate.as_dict()["step"] <= 0.001


def test_model_folders_keep_the_paths_of_the_user(
    node_module: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder_paths = importlib.import_module("folder_paths")
    model_folders = node_module("model_folders")
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {"stylegan2": ([str(tmp_path)], set())})
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    model_folders.register()
    model_folders.register()
    assert model_folders.folders("stylegan2") == (tmp_path, tmp_path / "models" / "stylegan2")
    for name in ("a.pkl", "a.pkl.dynode.safetensors", "readme.txt", "b.safetensors"):
        (tmp_path / name).touch()
    assert model_folders.files("stylegan2") == ["a.pkl", "b.safetensors"]
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        model_folders.full_path("stylegan2", "gone.pkl")


def test_frame_align_cuts_scenes_without_a_landmarker_and_reports(node_module: Callable[[str], ModuleType]) -> None:
    module = node_module("align")
    frames = torch.rand(4, 24, 40, 3, generator=torch.Generator().manual_seed(0))
    before = ("largest", 0, 1.0, "256", 1.0, "all frames")
    aligned, crops, preview, report = module.FrameAlign.execute(frames, 25.0, *before, framing="centre crop").result
    assert aligned.quads[0].tolist() == [[8, 0], [8, 24], [32, 24], [32, 0]]
    assert crops.shape == (4, 256, 256, 3) and preview.shape[0] == 1
    assert report.startswith("No face was looked for: a crop of 24 px in all 4 frames.")
    box = {"x": 4, "y": 2, "width": 10, "height": 8}
    around = module.FrameAlign.execute(frames, 25.0, *before, framing="custom quad", face_box=box).result[0]
    assert around.quads[3].tolist() == [[4, 1], [4, 11], [14, 11], [14, 1]]
    with pytest.raises(ValueError, match="face_point and face_box each point at a face"):
        module.FrameAlign.execute(frames, 25.0, *before, face_box=box, face_point="3, 4")


def test_frame_align_takes_the_landmarks_of_comfyui(node_module: Callable[[str], ModuleType]) -> None:
    points = np.zeros((478, 2))
    points[[33, 160, 158, 133, 153, 144]], points[[362, 385, 387, 263, 373, 380]] = (14, 9), (26, 9)
    points[[61, 291]] = (20, 18)
    value = {"frames": [[{"landmarks_xy": points}], [], [{"landmarks_xy": points}]], "image_size": (24, 40)}
    frames = torch.rand(1, 24, 40, 3).expand(3, -1, -1, -1)
    result = (
        node_module("align")
        .FrameAlign.execute(frames, 25.0, "largest", 0, 1.0, "256", 1.0, "first frame", face_landmarks=value)
        .result
    )
    assert result[0].track.detected.tolist() == [True, False, True]
    assert result[3].startswith("Face found in 2 of 3 frames.") and len(result[1]) == 1


def test_widgets_of_saved_workflows_keep_their_places(node_module: Callable[[str], ModuleType]) -> None:
    info = node_module("align").FrameAlign.GET_NODE_INFO_V1()
    required, optional = list(info["input"]["required"]), list(info["input"]["optional"])
    first = ["frames", "fps", "which_face", "face_index", "smoothing", "crop_size", "crop_scale", "picture_frames"]
    assert required == first, "a prompt from an earlier version would lack an input"
    later = ["framing", "search", "face_point", "custom_quad", "least_found", "edit_profiles"]
    assert optional[: len(later)] == later
    assert info["output_name"] == ["aligned", "crops", "preview", "report"]


def test_sound_is_found_only_in_files_that_hold_some(node_module: Callable[[str], ModuleType], film: Path) -> None:
    from dynode_pack.dynode_core.video import FileClip

    clips = node_module("clips")
    assert not clips.has_sound(clips.clip_of(torch.rand(2, 16, 16, 3), 10.0))
    assert not clips.has_sound(FileClip(film))
    assert clips.has_sound(clips.sound_clip({"waveform": torch.rand(1, 1, 4800), "sample_rate": 48000}))


def test_file_whose_name_comes_through_a_link_has_no_stamp_yet(node_module: Callable[[str], ModuleType]) -> None:
    assert node_module("saved_files").stamp("latent_codes", None) is None
