"""What a real ComfyUI server says about the pack: nodes, their inputs, help pages, templates."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import WORKFLOWS, quick

pytestmark = [pytest.mark.comfy, pytest.mark.weights]
REPOSITORY = Path(__file__).resolve().parent.parent.parent
NODE_NAMES = {
    "DynODE_LoadGenerator": "Load StyleGAN2",
    "DynODE_LoadEncoder": "Load Encoder",
    "DynODE_FrameAlign": "FrameAlign",
    "DynODE_Invert": "StyleGAN2 Invert",
    "DynODE_FitTrajectory": "Fit Trajectory ODE (GPU DOPRI5)",
    "DynODE_EditFirstLatent": "Edit First Latent",
    "DynODE_EditFromPicture": "Edit From Picture",
    "DynODE_CarryTexture": "Carry Texture",
    "DynODE_EditByText": "Edit By Text",
    "DynODE_FindDirections": "Find Directions",
    "DynODE_DirectionFromScores": "Direction From Scores",
    "DynODE_SaveDirections": "Save Directions",
    "DynODE_PreviewDirections": "Preview Directions",
    "DynODE_EditOverTime": "Edit Over Time",
    "DynODE_TransferEdit": "Transfer Edit",
    "DynODE_SampleLatents": "Sample Latents",
    "DynODE_MixLatents": "Mix Latents",
    "DynODE_SolveAtTimes": "Solve At Times",
    "DynODE_StitchTuning": "Stitch Tuning",
    "DynODE_Render": "StyleGAN2 Render",
    "DynODE_BlendBack": "Blend Back",
    "DynODE_CompareTrajectory": "Compare Trajectory",
    "DynODE_SaveTrajectory": "Save Trajectory",
    "DynODE_LoadTrajectory": "Load Trajectory",
    "DynODE_SaveCodes": "Save Codes",
    "DynODE_LoadCodes": "Load Codes",
    "DynODE_InversionReport": "Inversion Report",
    "DynODE_PivotalTuning": "Pivotal Tuning",
    "DynODE_ClearCaches": "Clear Caches",
}
WITHOUT_VIDEO = {"find_a_direction"}
NUMBERS = {"INT", "FLOAT"}
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


@pytest.fixture(scope="module")
def object_info(client: Any) -> dict[str, Any]:
    """What the server knows about all nodes."""
    return dict(client.get_json("/object_info"))


def inputs_of(info: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, type, options) of all inputs, those of dynamic combos included."""
    for group in ("required", "optional"):
        for name, spec in (info.get(group) or {}).items():
            options = spec[1] if len(spec) > 1 else {}
            yield name, spec[0], options
            if spec[0] == DYNAMIC:
                for option in options["options"]:
                    yield from inputs_of(option["inputs"])


@pytest.mark.parametrize(("node_id", "name"), NODE_NAMES.items())
def test_node_is_offered_under_its_name(object_info: dict[str, Any], node_id: str, name: str) -> None:
    info = object_info[node_id]
    assert info["display_name"] == name
    assert info["category"].split("/")[0] == "DynODE"
    assert len(info["description"]) > 40
    assert info["search_aliases"]
    assert all(info["output_tooltips"]), "every output needs a tooltip"


def test_every_node_of_the_pack_is_listed_here(object_info: dict[str, Any]) -> None:
    assert {name for name in object_info if name.startswith("DynODE")} == set(NODE_NAMES)


@pytest.mark.parametrize("node_id", NODE_NAMES)
def test_every_input_has_tooltip_default_and_range(object_info: dict[str, Any], node_id: str) -> None:
    for name, kind, options in inputs_of(object_info[node_id]["input"]):
        assert options.get("tooltip"), f"{name} has no tooltip"
        if options.get("forceInput"):  # a socket, without a widget that needs a value
            continue
        if kind in NUMBERS:
            assert options["min"] <= options["default"] <= options["max"], name
        elif kind == "BOOLEAN":
            assert isinstance(options["default"], bool), name
        elif kind == "STRING":
            assert isinstance(options["default"], str), name
        elif kind == "COMBO":
            assert options["default"] in options["options"], name


@pytest.mark.parametrize("node_id", NODE_NAMES)
def test_help_page_is_served_and_explains_every_input(client: Any, object_info: dict[str, Any], node_id: str) -> None:
    page = client.get(f"/extensions/ComfyUI-DynODE/docs/{node_id}.md").decode()
    missing = [name for name, _, _ in inputs_of(object_info[node_id]["input"]) if name not in page]
    assert not missing


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_is_offered_as_a_template_with_a_thumbnail(client: Any, name: str) -> None:
    assert name in client.get_json("/workflow_templates")["ComfyUI-DynODE"]
    workflow = json.loads(client.get(f"/api/workflow_templates/ComfyUI-DynODE/{name}.json"))
    assert workflow["nodes"]
    assert client.get(f"/api/workflow_templates/ComfyUI-DynODE/{name}.jpg").startswith(b"\xff\xd8")


def test_every_workflow_file_is_tested_here() -> None:
    assert sorted(path.stem for path in (REPOSITORY / "workflows").glob("*.json")) == sorted(WORKFLOWS)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_uses_only_nodes_of_comfyui_and_of_the_pack(client: Any, name: str) -> None:
    prompt = client.load_prompt(REPOSITORY / "workflows" / f"{name}.json")
    kinds = {node["class_type"] for node in prompt.values()}
    assert name in WITHOUT_VIDEO or {"LoadVideo", "SaveVideo", "DynODE_BlendBack"} <= kinds
    assert not {kind for kind in kinds if kind.startswith("DynODE")} - set(NODE_NAMES)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_server_takes_the_workflow_without_a_complaint(client: Any, name: str) -> None:
    """Types of links, values of inputs; test_workflows.py runs some of them to the end."""
    prompt = quick(client.load_prompt(REPOSITORY / "workflows" / f"{name}.json"))
    run = client.run(prompt, listener=lambda event, run, node_id: event == "end" or client.interrupt(run.prompt_id))
    assert run.status != "invalid", run.describe_failure()
    assert not run.node_errors


def test_scripts_of_the_page_are_served_and_the_help_pages_are_none(client: Any) -> None:
    scripts = {path for path in client.get_json("/extensions") if "ComfyUI-DynODE" in path}
    assert scripts == {f"/extensions/ComfyUI-DynODE/js/{name}.js" for name in ("path_in_plane", "trajectory_panel")}
    assert all(client.get(path) for path in scripts)


def test_a_missing_help_page_is_a_404(client: Any) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        client.get("/extensions/ComfyUI-DynODE/docs/DynODE_Nothing.md")


def test_the_server_logged_no_failure_to_import_the_pack(server: Any) -> None:
    log = server.log.read_text(errors="replace")
    assert "IMPORT FAILED" not in log
    assert "ComfyUI-DynODE could not be loaded" not in log
