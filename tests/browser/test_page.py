"""The workflows in ComfyUI's own page: dropped on the canvas, run, looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import QUICK, WORKFLOWS, quick

pytestmark = [pytest.mark.comfy, pytest.mark.browser, pytest.mark.weights]
REPOSITORY = Path(__file__).resolve().parent.parent.parent
DEADLINE_MS, RUN_DEADLINE_MS = 240_000, 1_500_000
"""Only there to end a test that hangs: a busy machine takes its time."""
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.InstalledVersion": "99.0.0",
    "Comfy.Locale": "en",
    "Comfy.Release.Status": "skipped",
    "Comfy.UseNewMenu": "Top",
}
"""A returning user: no tutorial, no news."""
BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
]

LOADED = """() => window.app?.graph && window.app.extensionManager && document.querySelector('#graph-canvas')
    && 'LoadVideo' in window.LiteGraph.registered_node_types"""
NEXT_PICTURE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
DROP = """([text, name]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name, { type: 'application/json' }));
    const canvas = document.querySelector('#graph-canvas');
    const box = canvas.getBoundingClientRect();
    for (const kind of ['dragenter', 'dragover', 'drop']) {
        canvas.dispatchEvent(new DragEvent(kind, {
            dataTransfer: data, bubbles: true, cancelable: true,
            clientX: box.x + box.width / 2, clientY: box.y + box.height / 2,
        }));
    }
}"""
PAGES_OWN = frozenset({"video-preview"})
"""Inputs that the page adds by itself, once a video was loaded, and that the server does not know."""
NODES = """() => window.app.graph._nodes.map(node => ({
    type: node.type,
    title: node.title,
    known: node.type in window.LiteGraph.registered_node_types,
    red: Boolean(node.has_errors),
}))"""
SET_WIDGETS = """values => {
    for (const node of window.app.graph._nodes) {
        for (const widget of node.widgets || []) {
            if (values[node.type] && widget.name in values[node.type]) {
                widget.value = values[node.type][widget.name];
            }
        }
    }
}"""
RUN = """async deadline => {
    const api = window.app.api, seen = { previews: 0, executed: [] };
    const end = new Promise(resolve => {
        for (const kind of ['execution_success', 'execution_error', 'execution_interrupted']) {
            api.addEventListener(kind, event => resolve({ end: kind, message: event.detail.exception_message }));
        }
        for (const kind of ['b_preview', 'b_preview_with_metadata']) {
            api.addEventListener(kind, () => { seen.previews += 1; });
        }
        api.addEventListener('executed', event => seen.executed.push(Object.keys(event.detail.output || {})));
        setTimeout(() => resolve({ end: 'timeout' }), deadline);
    });
    await window.app.queuePrompt(0, 1);
    const errors = window.app.lastNodeErrors;
    if (errors && Object.keys(errors).length) return { ...seen, end: 'refused', message: JSON.stringify(errors) };
    return { ...(await end), ...seen };
}"""

PANEL = """type => {
    const node = window.app.graph._nodes.find(node => node.type === type);
    const widget = (node.widgets || []).find(widget => widget.name === 'dynode_path_panel');
    if (!widget) return null;
    const { panel } = widget, { element, slider, label, canvas } = panel, seen = [label.textContent];
    slider.value = slider.max;
    slider.dispatchEvent(new Event('input'));
    seen.push(label.textContent);
    const box = canvas.getBoundingClientRect(), [x, y] = panel.placed()(panel.data.path[0]);
    canvas.dispatchEvent(new PointerEvent('pointermove', {
        buttons: 1, clientX: box.x + x * box.width / canvas.width, clientY: box.y + y * box.height / canvas.height,
    }));
    seen.push(label.textContent);
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    return {
        seen, shown: element.isConnected && box.width > 50 && box.height > 50, drawn: pixels.some(value => value > 0),
        saved: JSON.stringify(window.app.graph.serialize()).includes('dynode_path'),
    };
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium from the system's packages."""
    from playwright.sync_api import sync_playwright

    import system_packages

    path = system_packages.find_chromium()
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium (CHROMIUM_PATH names another)")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, headless=True, args=BROWSER_OPTIONS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Any, server: Any) -> Iterator[Any]:
    """ComfyUI's page, loaded, with nothing fetched from elsewhere; `page.failures` collects its script errors."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080})
    context.set_default_timeout(DEADLINE_MS)
    opened = context.new_page()
    opened.failures = []
    opened.on("pageerror", lambda error: opened.failures.append(str(error)))
    opened.route(lambda url: not url.startswith(server.address), lambda route: route.abort())
    opened.request.post(f"{server.address}/api/settings", data=SETTINGS)
    opened.goto(server.address, wait_until="domcontentloaded")
    opened.wait_for_function(LOADED)
    yield opened
    context.close()


def drop(page: Any, name: str) -> dict[str, Any]:
    """Drop a workflow file on the canvas and wait until its nodes are there; returns the file's content."""
    text = (REPOSITORY / "workflows" / f"{name}.json").read_text(encoding="utf-8")
    workflow: dict[str, Any] = json.loads(text)
    page.evaluate(DROP, [text, f"{name}.json"])
    kinds = sorted(node["type"] for node in workflow["nodes"])
    page.wait_for_function(
        "kinds => JSON.stringify(window.app.graph._nodes.map(node => node.type).sort()) === JSON.stringify(kinds)",
        arg=kinds,
    )
    return workflow


def photograph(page: Any, name: str) -> None:
    """Leave a picture of the page in output/."""
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.evaluate(NEXT_PICTURE)
    folder = REPOSITORY / "output"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=str(folder / f"page_{name}.png"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_dropped_on_the_canvas_shows_only_known_nodes(page: Any, name: str) -> None:
    drop(page, name)
    nodes = page.evaluate(NODES)
    photograph(page, f"{name}_loaded")
    assert [node["type"] for node in nodes if not node["known"]] == []
    assert [node["title"] for node in nodes if node["red"]] == []
    assert page.failures == []


@pytest.mark.parametrize("name", WORKFLOWS[:1])  # the server tests run the others
def test_workflow_dropped_on_the_canvas_runs_without_a_red_node(page: Any, name: str) -> None:
    drop(page, name)
    page.evaluate(SET_WIDGETS, QUICK)
    run = page.evaluate(RUN, RUN_DEADLINE_MS)
    photograph(page, name)
    assert run["end"] == "execution_success", run.get("message")
    assert [node["title"] for node in page.evaluate(NODES) if node["red"]] == []
    assert run["executed"], "no node showed anything"
    panel = page.evaluate(PANEL, "DynODE_FitTrajectory")
    assert panel is not None, "the trajectory has no panel"
    first, last, dragged = panel["seen"]
    assert first.startswith("frame 0 of 11, 0.00 s") and last.startswith("frame 11 of 11, ")
    assert dragged != last, "dragging on the path does nothing"
    assert panel["shown"] and panel["drawn"] and not panel["saved"]
    assert page.failures == []


def test_page_queues_what_the_converter_of_the_project_makes(page: Any, client: Any) -> None:
    """demo.sh converts workflows without a browser; the page is the judge of that."""
    for name in WORKFLOWS:
        drop(page, name)
        page.evaluate(SET_WIDGETS, QUICK)
        queued = page.evaluate("async () => (await window.app.graphToPrompt()).output")
        converted = quick(client.load_prompt(REPOSITORY / "workflows" / f"{name}.json"))
        assert _essence(converted) == _essence(queued), name


def _essence(prompt: dict[str, Any]) -> dict[str, Any]:
    return {
        node_id: (node["class_type"], {name: value for name, value in node["inputs"].items() if name not in PAGES_OWN})
        for node_id, node in prompt.items()
    }
