"""scripts/comfy_env.py and system_packages.py: what can be checked without installing anything."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

import comfy_env
import system_packages


def test_requirements_of_torch_and_templates_are_left_out_and_nothing_else() -> None:
    lines = [
        "torch",
        "torch>=2",
        "torchsde",
        "Torchvision == 1",
        "",
        "# torchaudio",
        "comfyui-workflow-templates==1",
        "av",
    ]
    assert comfy_env._without(lines, (*comfy_env.TORCH_PACKAGES, comfy_env.TEMPLATE_BUNDLE)) == ["torchsde", "av"]


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_only_files_below_comfyui_are_unpacked_and_none_outside_the_target(tmp_path: Path) -> None:
    inside = comfy_env.COMFYUI_FOLDER
    members = {
        f"{inside}main.py": b"ok",
        f"{inside}../../evil.py": b"no",
        f"{inside}a/b.py": b"ok",
        "other/x.py": b"no",
    }
    target = tmp_path / "deep" / "target"
    comfy_env._unpack(archive_of(tmp_path / "a.tar.gz", members), target)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py"))
    assert files == ["deep/target/a/b.py", "deep/target/main.py"]


def test_stamp_holds_until_a_file_it_was_made_from_changes(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("av\n")
    done, stamp, wanted = comfy_env._stamped(tmp_path, "x", requirements, "text")
    assert not done
    stamp.write_text(wanted)
    assert comfy_env._stamped(tmp_path, "x", requirements, "text")[0]
    assert not comfy_env._stamped(tmp_path, "x", requirements, "other text")[0]
    requirements.write_text("av>=13\n")
    assert not comfy_env._stamped(tmp_path, "x", requirements, "text")[0]


def test_folder_without_comfyui_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(comfy_env.EnvironmentFailure, match="main.py"):
        comfy_env._overlay_environment(tmp_path)


def test_python_that_cannot_be_run_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "no_python"))
    with pytest.raises(comfy_env.EnvironmentFailure, match="no_python"):
        comfy_env._python_of(tmp_path)


def test_venv_inside_comfyui_is_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PYTHON", raising=False)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert comfy_env._python_of(tmp_path) == python


def test_missing_system_packages_without_root_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_packages, "LIBRARIES", {"libdoes_not_exist.so.9": "libdoes-not-exist"})
    monkeypatch.setattr(system_packages.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(system_packages.sys, "platform", "linux")
    with pytest.raises(system_packages.MissingSystemPackage, match="libdoes-not-exist"):
        system_packages.ensure_libraries(lambda line: None)


def test_requirements_of_package_and_file_agree() -> None:
    """ComfyUI Manager reads requirements.txt, the registry pyproject.toml: they must say the same."""
    text = (comfy_env.REPOSITORY / "pyproject.toml").read_text()
    block = text.split("dependencies = [", 1)[1].split("]", 1)[0]
    project = [line.strip().strip('",') for line in block.splitlines() if line.strip()]
    file = (comfy_env.REPOSITORY / "requirements.txt").read_text().splitlines()
    assert project == [line for line in file if line and not line.startswith("#")]


def test_no_requirement_has_an_upper_pin() -> None:
    lines = (comfy_env.REPOSITORY / "requirements.txt").read_text().splitlines()
    needed = [line for line in lines if line and not line.startswith("#")]
    assert needed and not [line for line in needed if "<" in line or "==" in line or "~" in line]
