"""How close the pack comes to the numbers of the original implementations: run the tests that compare, write tables.

    $PYTHON scripts/parity_table.py              # writes benchmarks/results/parity.json and docs/parity.md
    $PYTHON scripts/parity_table.py --rewrite    # docs/parity.md anew from the JSON file, without running anything

The cases of `tests/golden` always run, those of the reference material and of the model packages where these are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = ("test_generators_stylegan2", "test_generators_mobile_stylegan", "test_checkpoints_formats")
TESTS += ("test_encoders_golden",)
JSON, TABLE = REPOSITORY / "benchmarks" / "results" / "parity.json", REPOSITORY / "docs" / "parity.md"
_HEAD = """# Parity with the original implementations

Largest differences on the CPU in float32. A comparison passes if max |a - b| is at most the tolerance times
max(1, max |reference|); *used* is the largest share of that. Written by `scripts/parity_table.py`.

"""
_SECTIONS = (
    (
        "original",
        "Against numbers of the original code",
        "This pack beside numbers that the original implementations produced; `tests/golden/README.md` says how.",
    ),
    (
        "openvino",
        "Against the OpenVINO runtime",
        "This pack beside OpenVINO, which runs the network file of the default generator as it was published.",
    ),
    (
        "own",
        "Against this pack itself",
        "Two ways of this pack to one result, such as its fast operations and the plain definitions. They say that "
        "the ways agree; that the result is that of the original code follows only together with the first table.",
    ),
)
"""What the cases are compared with (`tests/parity.py`), the heading of their table, and what it shows."""


def main() -> int:
    """Exit status of the tests."""
    if sys.argv[1:] == ["--rewrite"]:
        TABLE.write_text(_HEAD + tables(json.loads(JSON.read_text(encoding="utf-8"))), encoding="utf-8")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        cases_file = Path(folder) / "cases.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += [f"tests/{name}.py" for name in TESTS]
        run = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "DYNODE_PARITY": str(cases_file)})
        if not cases_file.is_file():
            return run.returncode or 1
        cases = json.loads(cases_file.read_text(encoding="utf-8"))
    report = {"machine": machine(), "cases": cases}
    JSON.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(_HEAD + tables(report), encoding="utf-8")
    return run.returncode


def tables(report: dict[str, Any]) -> str:
    """The report as Markdown: a table for each kind of reference."""
    facts = report["machine"]
    text = f"torch {facts['torch']}, Python {facts['python']}, {facts['processor']}, {facts['date']}, "
    text += f"commit {facts['commit']}.\n"
    for against, heading, meaning in _SECTIONS:
        cases = [case for case in report["cases"] if case["against"] == against]
        if cases:
            text += f"\n## {heading}\n\n{meaning}\n\n{table(cases)}"
    return text


def table(cases: list[dict[str, Any]]) -> str:
    """Cases as a Markdown table."""
    lines = ["| case | comparisons | largest difference | tolerance | used |", "|---|---|---|---|---|"]
    for case in cases:
        name = case["test"].partition("::")[2].removeprefix("test_").replace("_", " ")
        name, _, parameters = name.partition("[")
        name += f" ({case['test'].partition('[')[2].removesuffix(']')})" if parameters else ""
        lines.append(
            f"| {name} | {case['comparisons']} | {case['largest_error']:.1e} | {case['tolerance']:.0e} | "
            f"{case['share_of_tolerance']:.0%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
