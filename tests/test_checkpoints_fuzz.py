"""A short run of the fuzzer: `scripts/fuzz_checkpoints.py --count 10000` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "fuzz_checkpoints.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_damaged_files_run_nothing_and_are_explained() -> None:
    command = [sys.executable, str(SCRIPT), "--count", "150", "--seed", "7"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    report = json.loads(run.stdout)
    assert report["failures"] == [] and run.returncode == 0
    assert sum(report["outcomes"].values()) == 150
    assert len(report["files"]) >= 15
    assert report["peak_memory_growth_mib"] < 512
