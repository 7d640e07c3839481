"""StyleGAN2 (Karras et al. 2020, arXiv 1912.04958) in plain PyTorch: any resolution, any category.

The canonical layout is NVIDIA's (stylegan2-ada-pytorch): their names, their conventions, no compiled plug-in. Two
implementations of the operations give the same picture: `reference` (the definitions) and `fast` (`ops`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shape
from . import ops
from .compiled import OptionalCompile
from .ops_reference import make_filter, upsample2d
from .stylegan2_config import StyleGAN2Config, channels_of, check_state
from .stylegan2_layers import NOISE_MODES, Implementation, NoiseMode, Skip, StyledLayer, ToRGB
from .stylegan2_layers import Mapping as MappingNetwork


class Block(nn.Module):
    """One resolution of the synthesis network."""

    const: Tensor

    def __init__(self, config: StyleGAN2Config, res: int, channels: Mapping[int, int], noise: bool) -> None:
        super().__init__()
        out, w_dim, clamp = channels[res], config.w_dim, config.conv_clamp
        self.resolution, self.is_first = res, res == 4
        self.is_residual = config.architecture == "resnet" and res > 4
        if self.is_first:
            self.const = nn.Parameter(torch.empty(out, 4, 4))
        else:
            before = channels[res // 2]
            self.conv0 = StyledLayer(before, out, w_dim, res, up=2, clamp=clamp, noise=noise)
            if self.is_residual:
                self.skip = Skip(before, out)
        self.conv1 = StyledLayer(out, out, w_dim, res, up=1, clamp=clamp, noise=noise)
        self.has_rgb = config.architecture == "skip" or res == config.resolution
        if self.has_rgb:
            self.torgb = ToRGB(out, config.img_channels, w_dim, clamp)

    @property
    def layers(self) -> list[StyledLayer]:
        """The styled layers in order; each takes one row of W+."""
        return [self.conv1] if self.is_first else [self.conv0, self.conv1]


class Synthesis(nn.Module):
    """W+ codes to images."""

    def __init__(self, config: StyleGAN2Config, channels: Mapping[int, int], noise: bool) -> None:
        super().__init__()
        self.resolutions = config.block_resolutions
        for res in self.resolutions:
            setattr(self, f"b{res}", Block(config, res, channels, noise))

    @property
    def blocks(self) -> list[Block]:
        """From 4 px to the full resolution."""
        return [getattr(self, f"b{res}") for res in self.resolutions]


class StyleGAN2(nn.Module):
    """The generator (see `generators.protocol.Generator`), frozen.

    Args:
        state: canonical tensors (NVIDIA's names), copied.
        config: what the tensors do not show.
        family: which codes fit, e.g. "stylegan2-ffhq-1024x18".
        generator_id: hash of the weights.
        implementation: "fast", or "reference" for the operations by definition.
    Raises:
        ValueError: tensors are missing or do not fit together.
    """

    fir: Tensor
    w_avg: Tensor
    """`(D,)` float32, the mean w."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        config: StyleGAN2Config,
        *,
        family: str,
        generator_id: str,
        implementation: Implementation = "fast",
    ) -> None:
        super().__init__()
        check_state(state, config)
        self.config, self.family, self.generator_id, self.implementation = config, family, generator_id, implementation
        self.num_ws, self.w_dim, self.z_dim = config.num_ws, config.w_dim, config.z_dim
        self.resolution = config.resolution
        self.half_precision = "cuda"
        """Where the layers trained in half precision use it: "cuda", "always" or "never"."""
        self._compiled: OptionalCompile | None = None
        has_noise = any(name.endswith("noise_const") for name in state)
        # Hosts may run nodes in inference mode; weights made there could never take part in an optimisation.
        with torch.inference_mode(False), torch.no_grad():
            with torch.device("meta"):
                self.mapping = MappingNetwork(
                    config.z_dim, config.c_dim, config.w_dim, config.mapping_layers, config.mapping_lr
                )
                self.synthesis = Synthesis(config, channels_of(state, config), has_noise)
            own = {name: _laid_out(state[name].detach().float()) for name in self.state_dict()}
            self.load_state_dict(own, assign=True)
            self.register_buffer("w_avg", self.mapping.w_avg, persistent=False)
            self.register_buffer("fir", make_filter(config.fir_taps), persistent=False)
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.fir.device

    def map(
        self,
        z: Tensor,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """`(N, z_dim)` normal samples to `(N, L, D)` W+ codes with equal rows before truncation.

        Args:
            truncation_psi: 1 keeps w, 0 gives the mean w.
            truncation_cutoff: only the first so many rows are truncated; None means all.
            label: `(N, c_dim)` one-hot class for conditional networks; None means the first class.
        """
        check_shape("z", z, ("N", self.z_dim))
        if self.config.c_dim:
            if label is None:
                label = F.one_hot(torch.zeros(len(z), dtype=torch.long, device=z.device), self.config.c_dim).to(z.dtype)
            check_shape("label", label, (len(z), self.config.c_dim))
        w = self.mapping(z.float(), label if label is None else label.float())
        w_plus = w[:, None].repeat(1, self.num_ws, 1)
        if truncation_psi == 1.0:
            return w_plus
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        truncated = self.w_avg.lerp(w_plus[:, :cutoff], truncation_psi)
        return torch.cat([truncated, w_plus[:, cutoff:]], dim=1)

    def synthesize(
        self,
        w_plus: Tensor,
        *,
        size: int | None = None,
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See `Generator.synthesize`.

        Args:
            noise_mode: "const" (the stored noise), "random" (drawn from `generator`) or "none".
        """
        check_shape("w_plus", w_plus, ("N", self.num_ws, self.w_dim))
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode should be one of {', '.join(NOISE_MODES)}, but is {noise_mode!r}.")
        if size is not None and (size < 1 or self.resolution % size):
            raise ValueError(f"size should divide the generator's resolution {self.resolution}, but is {size}.")
        noises = [
            [layer.noise(len(w_plus), noise_mode, generator) for layer in block.layers]
            for block in self.synthesis.blocks
        ]
        run = StyleGAN2._run if self._compiled is None else self._compiled
        image = run(self, w_plus.float(), noises)
        return image if size is None or size == self.resolution else F.avg_pool2d(image, self.resolution // size)

    def compile_synthesis(self, **options: Any) -> None:
        """Use torch.compile from the next picture on, where it works; `options` are those of `torch.compile`."""
        self._compiled = OptionalCompile(StyleGAN2._run, **options)

    def feature_maps(self, w_plus: Tensor, *, size: int) -> Tensor:
        """`(N, L, D)` codes to the `(N, C, size, size)` feature maps of one block, differentiable."""
        check_shape("w_plus", w_plus, ("N", self.num_ws, self.w_dim))
        if size not in self.config.block_resolutions:
            raise ValueError(f"size should be one of {self.config.block_resolutions}, but is {size}.")
        x = None
        for i, block in enumerate(self.synthesis.blocks):
            noise = [layer.noise(len(w_plus), "const", None) for layer in block.layers]
            x, _ = self._block(block, x, None, self._rows(w_plus.float(), i), noise, with_image=False)
            if block.resolution == size:
                break
        assert x is not None
        return x.float()

    def tunable_parameters(self, size: int) -> dict[str, nn.Parameter]:
        """See `generators.tuning.Tunable`: weights and biases of the styled convolutions."""
        chosen = (f"synthesis.b{res}." for res in self.config.block_resolutions if res <= size)
        prefixes = tuple(f"{block}{name}." for block in chosen for name in ("conv0", "conv1"))
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if name.startswith(prefixes) and name.endswith((".weight", ".bias")) and ".affine." not in name
        }

    def _rows(self, w_plus: Tensor, block: int) -> Tensor:
        """The rows of W+ that a block uses; its last one, for colours, is also the first of the next block."""
        return w_plus[:, :2] if block == 0 else w_plus[:, 2 * block - 1 : 2 * block + 2]

    def _run(self, w_plus: Tensor, noises: list[list[Tensor | None]]) -> Tensor:
        x = image = None
        for i, (block, noise) in enumerate(zip(self.synthesis.blocks, noises, strict=True)):
            is_last = block.resolution == self.resolution
            x, image = self._block(block, x, image, self._rows(w_plus, i), noise, with_features=not is_last)
        assert image is not None
        return image

    def _block(
        self,
        block: Block,
        x: Tensor | None,
        image: Tensor | None,
        w: Tensor,
        noise: list[Tensor | None],
        *,
        with_features: bool = True,
        with_image: bool = True,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Features and image of the block before to those of this one, whichever of the two are wanted."""
        if x is None:
            x = block.const[None].expand(len(w), -1, -1, -1)
            if self.implementation == "fast":
                x = x.contiguous(memory_format=torch.channels_last)
        x = x.to(self._dtype(block))
        with_image = with_image and block.has_rgb
        if self._runs_in_strips(block, x, w):
            x, rgb = self._block_in_strips(block, x, w, noise, with_features=with_features, with_image=with_image)
        else:
            x = self._convolve(block, x, w, noise)
            rgb = block.torgb(x, w[:, -1], self.implementation) if with_image else None
        return x, image if rgb is None else self._add_rgb(image, rgb)

    def _convolve(self, block: Block, x: Tensor, w: Tensor, noise: list[Tensor | None]) -> Tensor:
        """The styled layers of a block: `(N, C, R/2, R/2)` to `(N, C', R, R)`."""
        shortcut = block.skip(x, self.fir, 0.5**0.5) if block.is_residual else None
        for i, layer in enumerate(block.layers):
            is_sum = block.is_residual and i == 1
            x = layer(x, w[:, i], noise[i], self.fir, self.implementation, 0.5**0.5 if is_sum else 1.0)
        return x if shortcut is None else shortcut + x

    def _add_rgb(self, image: Tensor | None, rgb: Tensor) -> Tensor:
        rgb = rgb.float()
        if image is None:
            return rgb
        if self.implementation == "reference":
            return upsample2d(image, self.fir) + rgb
        return ops.upsample_image(image, self.fir) + rgb

    def _dtype(self, block: Block) -> torch.dtype:
        trained_in_half = block.resolution >= self.config.fp16_resolution
        allowed = self.half_precision == "always" or (self.half_precision == "cuda" and self.device.type == "cuda")
        return torch.float16 if trained_in_half and allowed else torch.float32

    def _runs_in_strips(self, block: Block, x: Tensor, w: Tensor) -> bool:
        is_plain = self.implementation == "fast" and not block.is_first and not block.is_residual
        needs_grad = torch.is_grad_enabled() and (w.requires_grad or block.conv1.weight.requires_grad)
        rows = ops.strip_rows(block.conv1.bias, block.resolution)
        is_single = x.device.type == "cpu" and x.dtype == torch.float32
        return is_plain and is_single and not needs_grad and rows < block.resolution

    def _block_in_strips(
        self,
        block: Block,
        x: Tensor,
        w: Tensor,
        noise: list[Tensor | None],
        *,
        with_features: bool,
        with_image: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Features and colours of one block, a band of rows at a time: the same numbers, in little memory.

        Rows r0 to r1 of the result depend on rows r0/2 - 2 to r1/2 + 2 of `x`: three rows of context for the enlarging
        convolution and its filter, one row of the result's size for the second convolution.
        """
        res, height, batch = block.resolution, x.shape[2], len(x)
        rows, channels = ops.strip_rows(block.conv1.bias, res), len(block.conv1.bias)
        features = rgb = None
        if with_features:
            features = torch.empty(batch, channels, res, res, memory_format=torch.channels_last)
        if with_image:
            rgb = torch.empty(batch, self.config.img_channels, res, res)
        for top in range(0, res, rows):
            bottom = min(top + rows, res)
            low, high = max(0, top // 2 - 2), min(height, bottom // 2 + 2)
            cut = [None if n is None else n[:, :, 2 * low : 2 * high] for n in noise]
            band = self._convolve(block, x[:, :, low:high], w, cut)[:, :, top - 2 * low : bottom - 2 * low]
            if features is not None:
                features[:, :, top:bottom] = band
            if rgb is not None:
                rgb[:, :, top:bottom] = block.torgb(band, w[:, -1], self.implementation)
        return features, rgb


def _laid_out(tensor: Tensor) -> Tensor:
    """A copy in the memory layout in which the fast path uses it: 3x3 weights with their input channels innermost."""
    is_kernel = tensor.ndim == 4 and tensor.shape[-1] == 3
    return tensor.clone(memory_format=torch.channels_last if is_kernel else torch.contiguous_format)
