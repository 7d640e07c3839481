"""Damage checkpoints of every format at random and read them: no code may run, no crash, no hang, bounded memory.

    python scripts/fuzz_checkpoints.py --count 10000 --seed 0

Case i of a seed is always the same bytes. Each is read in a worker process that watches itself:
- code: an audit hook counts every start of a process, execution, import, socket and file opened for writing;
- crash: the worker dies, the parent notes the case and goes on in a new worker;
- hang: the parent ends a worker that spends longer than --seconds on one case;
- memory: the growth of the worker's peak resident size is kept, and its address space is limited to --memory-mib more.
Anything but a value or a ValueError that names the file is a failure. The report is JSON; exit status 1 on failure.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import commit

REPOSITORY = Path(__file__).resolve().parent.parent
SUFFIXES = (".pkl", ".pt", ".ckpt", ".npy", ".safetensors", ".xml", ".onnx")
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
OPCODES = b"()0123BCFGIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x85\x86\x87\x88\x8a\x8c\x8e\x90\x91\x92\x93\x94\x95."
FORBIDDEN = (
    "exec",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "subprocess.",
    "socket.",
    "import",
    "ctypes.",
    "pickle.find_class",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "shutil.",
)


def main() -> int:
    """Exit status: 0 if every case was read or refused as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="number of damaged files")
    parser.add_argument("--seed", type=int, default=0, help="case i of a seed is always the same")
    parser.add_argument("--seconds", type=float, default=60.0, help="longest time for one case, in seconds")
    parser.add_argument("--memory-mib", type=int, default=1024, help="how much more memory a worker may map, in MiB")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write as well")
    parser.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(options)
        return 0
    report = supervise(options)
    print(json.dumps(report, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if report["failures"] else 0


def supervise(options: argparse.Namespace) -> dict[str, Any]:
    """Run workers until every case is done; merge what they report."""
    outcomes: collections.Counter[str] = collections.Counter()
    formats: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures: list[dict[str, Any]] = []
    peak, slowest, following, started = 0.0, 0.0, 0, time.monotonic()
    while following < options.count:
        command = [sys.executable, __file__, "--worker", str(following)]
        for name in ("count", "seed", "memory_mib"):
            command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as worker:
            for line in watched_lines(worker, options.seconds):
                case = json.loads(line)
                following = case["case"] + 1
                outcomes[case["outcome"]] += 1
                formats[case["file"]][case["outcome"].split(":")[0]] += 1
                peak, slowest = max(peak, case["grown_mib"]), max(slowest, case["seconds"])
                if case["outcome"].startswith("FAILURE"):
                    failures.append(case)
                if following % 1000 == 0:
                    print(f"{following} cases, {len(failures)} failures", file=sys.stderr, flush=True)
            worker.wait()
        if following < options.count:
            failures.append(
                {"case": following, "outcome": f"FAILURE: worker ended with {worker.returncode} (crash or hang)"}
            )
            following += 1
    return {
        "command": f"python scripts/fuzz_checkpoints.py --count {options.count} --seed {options.seed}",
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "count": options.count,
        "seed": options.seed,
        "outcomes": dict(outcomes.most_common()),
        "files": {name: dict(sorted(counts.items())) for name, counts in sorted(formats.items())},
        "failures": failures[:50],
        "slowest_case_s": round(slowest, 2),
        "peak_memory_growth_mib": round(peak, 1),
        "wall_s": round(time.monotonic() - started, 1),
    }


def watched_lines(worker: subprocess.Popen[str], seconds: float) -> Any:
    """The lines of a worker; it is ended when none comes for `seconds` (the first may take a minute: imports)."""
    import queue
    import threading

    lines: queue.Queue[str | None] = queue.Queue()
    assert worker.stdout is not None
    pipe = worker.stdout

    def pump() -> None:
        for line in pipe:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    patience = max(seconds, 120.0)
    while True:
        try:
            line = lines.get(timeout=patience)
        except queue.Empty:
            worker.kill()
            return
        if line is None:
            return
        patience = seconds
        yield line


def work(options: argparse.Namespace) -> None:
    """Read cases from `options.worker` on, one JSON line each."""
    import resource

    pack = load_pack()
    originals = gather(pack)
    readers_of = readers(pack)
    events: list[str] = []
    watching = [False]

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if not watching[0]:
            return
        opens_for_writing = event == "open" and isinstance(args[1], str) and any(c in args[1] for c in "wax+")
        if opens_for_writing or event.startswith(FORBIDDEN):
            events.append(f"{event} {str(args[:1])[:80]}")

    with tempfile.TemporaryDirectory() as folder:
        for name, data in originals:  # everything that is imported lazily is imported now
            read_case(readers_of, Path(folder), name, data)
        sys.addaudithook(audit)
        limit = memory_bytes() + (options.memory_mib << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in range(options.worker, options.count):
            name, data = damaged(originals, options.seed, case)
            events.clear()
            started = time.monotonic()
            outcome = read_case(readers_of, Path(folder), name, data, watching)
            if events:
                outcome = f"FAILURE: code ran: {events[:3]}"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024
            seconds = round(time.monotonic() - started, 3)
            line = {"case": case, "file": name, "outcome": outcome, "seconds": seconds, "grown_mib": grown}
            print(json.dumps(line), flush=True)


def read_case(
    readers_of: Callable[[str], list[Callable[[Path], Any]]],
    folder: Path,
    name: str,
    data: bytes,
    watching: list[bool] | None = None,
) -> str:
    """Write one file, hand it to every reader it may meet, and say what came of it: "read" if any could use it."""
    path = folder / name
    path.write_bytes(data)
    if name.endswith(".xml"):
        path.with_suffix(".bin").write_bytes(bytes(range(64)) * 4)
    outcome = "refused"
    for read in readers_of(name):
        if watching is not None:
            watching[0] = True
        try:
            read(path)
            outcome = "read"
        except (ValueError, FileNotFoundError) as error:
            if path.stem not in str(error) and str(folder) not in str(error):
                outcome = f"FAILURE: message without the file's name: {str(error)[:200]}"
                break
        except BaseException as error:  # noqa: BLE001 - whatever else escapes is what we are looking for
            outcome = f"FAILURE: {type(error).__name__}: {str(error)[:200]}"
            break
        finally:
            if watching is not None:
                watching[0] = False
    return outcome


def readers(pack: str) -> Callable[[str], list[Callable[[Path], Any]]]:
    """Every way in which a user's file of a given name enters the pack."""
    import importlib

    def function(module: str, name: str) -> Callable[[Path], Any]:
        found: Callable[[Path], Any] = getattr(importlib.import_module(f"{pack}.dynode_core.{module}"), name)
        return found

    tensors = function("checkpoints.tensors", "load_tensors")
    by_suffix = {
        ".xml": [function("checkpoints.openvino_ir", "read_constants")],
        ".onnx": [function("inversion.identity_loss", "IdentityNetwork")],
        ".npy": [tensors],
        ".safetensors": [tensors, function("checkpoints.load", "read_generator")],
    }
    generator = [tensors, function("checkpoints.readers", "read_generator_file")]
    encoder = [*generator, function("inversion.encoders.load", "load_encoder")]

    def of(name: str) -> list[Callable[[Path], Any]]:
        return by_suffix.get(Path(name).suffix, encoder if name.startswith(("e4e", "psp")) else generator)

    return of


def gather(pack: str) -> list[tuple[str, bytes]]:
    """Names and bytes of one healthy file of every format."""
    import importlib

    folders = [
        REPOSITORY / "tests" / "golden",
        Path(os.environ.get("DYNODE_SHARED", REPOSITORY.parent / "shared")) / "golden",
    ]
    found: dict[str, bytes] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix in SUFFIXES and path.suffix != ".safetensors" and path.stat().st_size < 1 << 20:
                found.setdefault(path.name, path.read_bytes())
    loading = importlib.import_module(f"{pack}.dynode_core.checkpoints.load")
    with tempfile.TemporaryDirectory() as folder_name:
        target = Path(folder_name) / "converted.safetensors"
        loading.convert_checkpoint(folders[0] / "nv_sg2_gema_only_r32.pkl", target)
        found[target.name] = target.read_bytes()
    found["network.xml"] = (
        b'<?xml version="1.0"?><net name="n" version="10"><layers><layer id="0" name="a" type="Const" version="opset1">'
        b'<data element_type="f32" shape="2, 4" offset="0" size="32"/></layer><layer id="1" name="b" type="Const">'
        b'<data element_type="i64" shape="2" offset="32" size="16"/></layer></layers></net>'
    )
    specification = importlib.util.spec_from_file_location("onnx_writer", REPOSITORY / "tests" / "onnx_writer.py")
    assert specification is not None and specification.loader is not None
    writer = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(writer)
    found["embedder.onnx"] = writer.embedder(width=4)
    return sorted(found.items())


def damaged(originals: list[tuple[str, bytes]], seed: int, case: int) -> tuple[str, bytes]:
    """Name and bytes of one case: a healthy file after one to four random changes."""
    source = random.Random(f"{seed}/{case}")
    name, data = originals[case % len(originals)]
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        change(changed, source, originals)
    return name, bytes(changed)


def change(data: bytearray, source: random.Random, originals: list[tuple[str, bytes]]) -> None:
    """One random change, three in four of them where formats keep their structure rather than numbers."""
    if not data:
        data += b"\x80"
    place = place_in(data, source)
    kind = source.randrange(10)
    if kind == 0:
        data[place] ^= 1 << source.randrange(8)
    elif kind == 1:
        data[place] = source.randrange(256)
    elif kind == 2:
        data[place] = source.choice(OPCODES)
    elif kind == 3:
        width = source.choice((1, 2, 4, 8))
        data[place : place + width] = (source.choice(EXTREMES) & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    elif kind == 4:
        del data[place:]
    elif kind == 5:
        del data[place : place + source.choice((1, 2, 8, 64, 1024))]
    elif kind == 6:
        data[place:place] = source.randbytes(source.choice((1, 2, 8, 64)))
    elif kind == 7:
        chunk = data[place : place + source.choice((8, 64, 1024))]
        data[place:place] = chunk * source.choice((1, 2, 16))
    elif kind == 8:
        other = source.choice(originals)[1]
        begin = source.randrange(len(other))
        data[place : place + 256] = other[begin : begin + source.choice((16, 256, 4096))]
    else:
        data[place : place + source.choice((4, 64, 4096))] = bytes(source.choice((4, 64, 4096)))


def place_in(data: bytearray, source: random.Random) -> int:
    """Where to change something: the first or last 4 KiB, a place among readable text (names), or anywhere."""
    size, kind = len(data), source.randrange(4)
    if kind == 0:
        return min(size - 1, source.randrange(4096))
    if kind == 1:
        return max(0, size - 1 - source.randrange(4096))
    place = source.randrange(size)
    for _ in range(64 if kind == 2 else 0):
        around = data[max(0, place - 8) : place + 8]
        if sum(32 <= byte < 127 for byte in around) > 10:
            break
        place = source.randrange(size)
    return place


def memory_bytes() -> int:
    """Address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def load_pack() -> str:
    """Import the pack under a name of our own: its folder may have any name."""
    name = "dynode_fuzzed_pack"
    import types

    package = types.ModuleType(name)
    package.__path__ = [str(REPOSITORY)]  # type: ignore[attr-defined]
    sys.modules[name] = package
    assert importlib.util.find_spec(f"{name}.dynode_core") is not None
    return name


if __name__ == "__main__":
    sys.exit(main())
