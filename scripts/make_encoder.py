"""Fit the thumbnail encoder on sampled faces and write the file that ships with the pack.

    python scripts/make_encoder.py --samples .cache/face_samples.safetensors

The ridge is chosen on held-out faces by the error of w; the chosen value and the error are printed and stored.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dynode_core.checkpoints.tensors import load_tensors
from dynode_core.inversion.thumbnail_encoder import SHIPPED_FILE, fit_thumbnail_encoder
from dynode_core.layout import bytes_to_pictures, pictures_to_network

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, default=Path(".cache/face_samples.safetensors"))
    args = parser.parse_args()
    samples = load_tensors(args.samples)
    images = pictures_to_network(bytes_to_pictures(samples["pictures"].numpy()))
    w = samples["w"]
    held_out = torch.arange(len(w)) % 5 == 4
    errors = {}
    for ridge in RIDGES:
        encoder = fit_thumbnail_encoder(images[~held_out], w[~held_out], ridge)
        difference = encoder(images[held_out]) - w[held_out]
        errors[ridge] = float(difference.norm() / (w[held_out] - w[~held_out].mean(0)).norm())
        print(f"ridge {ridge:g}: held-out error of w, relative to the mean code: {errors[ridge]:.4f}")
    ridge = min(errors, key=errors.__getitem__)
    encoder = fit_thumbnail_encoder(images, w, ridge)
    SHIPPED_FILE.parent.mkdir(exist_ok=True)
    tensors = {"weight": encoder.weight.half(), "mean": encoder.mean, "w_mean": encoder.w_mean}
    metadata = {"faces": str(len(w)), "ridge": str(ridge), "held_out_error": f"{errors[ridge]:.4f}"}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, SHIPPED_FILE, metadata)
    print(f"ridge {ridge:g} on {len(w)} faces -> {SHIPPED_FILE.name} ({SHIPPED_FILE.stat().st_size / 2**20:.2f} MiB)")


if __name__ == "__main__":
    main()
