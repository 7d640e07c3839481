"""Time the generators: fast operations against the reference, MobileStyleGAN against OpenVINO, CUDA where there is one.

    python benchmarks/generator.py --out benchmarks/results/generator-<machine>.json

Random weights of the full size (timings do not depend on their values), one process, the variants in turn, the best of
--repeats. On a shared machine wall time is noise: the processor time beside it, and the load, say how far to trust it.
Needs no model file; MobileStyleGAN is measured if the package `random_face` is installed, OpenVINO if that is too.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "scripts")]

from dynode_core.generators.compiled import OptionalCompile  # noqa: E402
from dynode_core.generators.stylegan2 import StyleGAN2  # noqa: E402
from dynode_core.generators.stylegan2_config import StyleGAN2Config, expected_shapes  # noqa: E402
from dynode_core.memory import reuse_large_blocks  # noqa: E402
from machine import load_average, machine  # noqa: E402


def main() -> None:
    """Measure and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, nargs="+", default=[256, 1024], help="StyleGAN2 sizes in pixels")
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8], help="batch sizes on CUDA")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (minutes of compiling)")
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    about = machine() | {"threads": options.threads, "gpu": gpu}
    report: dict[str, Any] = {"machine": about, "cpu": {}, "mobile_stylegan": {}, "cuda": {}}
    with reuse_large_blocks():
        for resolution in options.resolution:
            report["cpu"][f"stylegan2_{resolution}"] = stylegan2_on_cpu(resolution, options.repeats)
            print(json.dumps(report["cpu"], indent=2), flush=True)
        report["mobile_stylegan"] = mobile_stylegan(options.repeats, options.threads, options.compile)
    if torch.cuda.is_available():
        report["cuda"] = stylegan2_on_cuda(max(options.resolution), options.batches, options.repeats, options.compile)
    report["machine"]["load_average_after"] = load_average()
    report["aims"] = aims(report)
    text = json.dumps(report, indent=2)
    print(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


def aims(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at, what came out, and whether that is enough; only what this run measured."""
    large, mobile, cuda = report["cpu"].get("stylegan2_1024", {}), report["mobile_stylegan"], report["cuda"]
    batch = cuda.get("batch_8", {})
    rows = [
        ("StyleGAN2 1024, CPU, forward: times faster than the reference", large.get("forward"), "speedup_wall_s", 2.0),
        (
            "StyleGAN2 1024, CPU, forward + backward: times faster than the reference",
            large.get("forward_backward"),
            "speedup_wall_s",
            1.5,
        ),
        ("MobileStyleGAN, CPU, forward: times the time of OpenVINO", mobile, "times_openvino_wall_s", -1.2),
        ("MobileStyleGAN, CPU, forward + backward: seconds", mobile, "forward_backward_best_s", -1.0),
        ("StyleGAN2, CUDA, batch 8, forward: times faster than fp32 reference", batch, "speedup_fp16", 2.0),
        (
            "StyleGAN2, CUDA, fp16 against fp32: mean difference in 255ths",
            batch,
            "mean_difference_fp16_in_255ths",
            -1.0,
        ),
    ]
    return [
        {"what": what, "aim": f"at {'least' if aim > 0 else 'most'} {abs(aim):g}", "measured": entry[key]}
        | {"met": entry[key] >= aim if aim > 0 else entry[key] <= -aim}
        for what, entry, key, aim in rows
        if entry and key in entry
    ]


def random_stylegan2(resolution: int, **options: Any) -> StyleGAN2:
    """Full-width config-f with random weights."""
    config = StyleGAN2Config(z_dim=512, w_dim=512, resolution=resolution, mapping_layers=8, **options)
    base = 32768 if resolution >= 512 else 16384
    channels = {res: min(base // res, 512) for res in config.block_resolutions}
    source = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=source) for name, shape in expected_shapes(config, channels).items()}
    for name in state:
        if name.endswith("affine.bias"):
            state[name] += 1
    return StyleGAN2(state, config, family="random", generator_id="random")


def codes(generator: Any, batch: int = 1) -> Tensor:
    """`(batch, L, D)` seeded codes."""
    z = torch.randn(batch, generator.z_dim, generator=torch.Generator().manual_seed(1)).to(generator.device)
    with torch.no_grad():
        return generator.map(z)


def forward(generator: Any, w_plus: Tensor) -> Tensor:
    """One picture, no gradient."""
    with torch.no_grad():
        return generator.synthesize(w_plus)


def forward_backward(generator: Any, w_plus: Tensor, size: int | None = None) -> Tensor:
    """One picture and the gradient of its mean square with respect to the codes."""
    leaf = w_plus.clone().requires_grad_()
    generator.synthesize(leaf, size=size).square().mean().backward()
    assert leaf.grad is not None
    return leaf.grad


def best(variants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of each variant, the best of `repeats`, the variants taking turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    for _ in range(repeats):
        for name, run in variants.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: {"wall_s": round(min(w for w, _ in values), 3), "processor_s": round(min(p for _, p in values), 3)}
        for name, values in times.items()
    }


def stylegan2_on_cpu(resolution: int, repeats: int) -> dict[str, Any]:
    """Reference against fast operations, forward and forward + backward, and how much the pictures differ."""
    generator = random_stylegan2(resolution)
    w_plus = codes(generator)

    def using(implementation: str, run: Callable[..., Tensor]) -> Callable[[], Tensor]:
        def call() -> Tensor:
            generator.implementation = implementation  # type: ignore[assignment]
            return run(generator, w_plus)

        return call

    result: dict[str, Any] = {}
    for name, run in (("forward", forward), ("forward_backward", forward_backward)):
        timed = best({kind: using(kind, run) for kind in ("reference", "fast")}, repeats)
        result[name] = timed | {f"speedup_{key}": ratio(timed, key) for key in ("wall_s", "processor_s")}
    reference, fast = using("reference", forward)(), using("fast", forward)()
    result["largest_difference_relative"] = float((reference - fast).abs().max() / reference.abs().max())
    return result


def ratio(timed: dict[str, dict[str, float]], key: str) -> float:
    """How many times faster `fast` is than `reference`."""
    return round(timed["reference"][key] / timed["fast"][key], 2)


def mobile_stylegan(repeats: int, threads: int, with_compile: bool) -> dict[str, Any]:
    """The default generator, and the OpenVINO runtime on the same file if it is installed."""
    from dynode_core.checkpoints.load import load_generator
    from dynode_core.model_files import GENERATOR, find_model

    try:
        source = find_model(GENERATOR)
    except FileNotFoundError as error:
        return {"skipped": str(error).splitlines()[0]}
    generator = load_generator()
    w_plus = codes(generator)
    variants: dict[str, Callable[[], Any]] = {"torch": lambda: forward(generator, w_plus)}
    with_gradient: dict[str, Callable[[], Any]] = {"torch": lambda: forward_backward(generator, w_plus)}
    if with_compile:
        compiled = types.SimpleNamespace(synthesize=OptionalCompile(generator.synthesize))
        variants["torch_compile"] = lambda: forward(compiled, w_plus)
        with_gradient["torch_compile"] = lambda: forward_backward(compiled, w_plus)
    network = openvino_network(source, threads)
    if network is not None:
        variants["openvino"] = network
    timed = best(variants, repeats)
    result: dict[str, Any] = {"forward": timed, "forward_backward": best(with_gradient, repeats)}
    result["forward_backward_best_s"] = min(entry["wall_s"] for entry in result["forward_backward"].values())
    if with_compile:
        result["compiled"] = not compiled.synthesize.is_eager
    if network is not None:
        for key in ("wall_s", "processor_s"):
            fastest = min(timed[name][key] for name in timed if name != "openvino")
            result[f"times_openvino_{key}"] = round(fastest / timed["openvino"][key], 2)
    return result


def openvino_network(source: Path, threads: int) -> Callable[[], Any] | None:
    """A call of the OpenVINO runtime on `source`, float32; None if it is not installed or the file is no IR."""
    try:
        import openvino
    except ImportError:
        return None
    if source.suffix != ".xml":
        return None
    core = openvino.Core()
    model = core.read_model(str(source))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", settings)
    import numpy as np

    inputs = [
        np.random.RandomState(0).randn(*[max(1, n.get_length()) for n in port.partial_shape])
        for port in compiled.inputs
    ]
    inputs = [values.astype(np.float32) for values in inputs]
    return lambda: compiled(inputs)


def stylegan2_on_cuda(resolution: int, batches: list[int], repeats: int, with_compile: bool) -> dict[str, Any]:
    """fp32 reference against the fast path in fp32, with half-precision layers, and with these in CUDA graphs."""
    from dynode_core.generators.batching import batch_that_fits

    generator: Any = random_stylegan2(resolution, conv_clamp=256.0, num_fp16_res=4).cuda()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result: dict[str, Any] = {"batch_that_fits": batch_that_fits(generator)}
    variants = {"reference_fp32": ("reference", "never"), "fast_fp32": ("fast", "never"), "fast_fp16": ("fast", "cuda")}
    for batch in batches:
        w_plus, pictures, entry = codes(generator, batch), {}, {}
        for name, (implementation, layers) in variants.items():
            generator.implementation, generator.half_precision = implementation, layers
            entry[name] = cuda_case(generator, w_plus, repeats)
            pictures[name] = forward(generator, w_plus[:1])
        if with_compile:
            graphed: Any = random_stylegan2(resolution, conv_clamp=256.0, num_fp16_res=4).cuda()
            graphed.compile_synthesis(mode="reduce-overhead")
            entry["fast_fp16_graphs"] = cuda_case(graphed, w_plus, repeats)
        spread = pictures["reference_fp32"].std()
        entry["mean_difference_fp16_in_255ths"] = float(
            (pictures["fast_fp16"] - pictures["reference_fp32"]).abs().mean() / spread * 255 / 2
        )
        half = [entry[name]["forward_s"] for name in entry if name.startswith("fast_fp16")]
        entry["speedup_fp16"] = round(entry["reference_fp32"]["forward_s"] / min(half), 2)
        result[f"batch_{batch}"] = entry
    return result


def cuda_case(generator: Any, w_plus: Tensor, repeats: int) -> dict[str, float]:
    """Best seconds and peak memory of one variant on the GPU."""
    result = {}
    for name, run in (("forward", forward), ("forward_backward", forward_backward)):
        try:
            run(generator, w_plus)
            torch.cuda.reset_peak_memory_stats()
            seconds = []
            for _ in range(repeats):
                torch.cuda.synchronize()
                start = time.perf_counter()
                run(generator, w_plus)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
            result[f"{name}_s"] = round(min(seconds), 4)
            result[f"{name}_peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            result[f"{name}_s"] = float("nan")
    return result


if __name__ == "__main__":
    main()
