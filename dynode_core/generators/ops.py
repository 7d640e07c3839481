"""The operations of StyleGAN2, fast. Each gives the numbers of its namesake in `ops_reference` (ours, tested so).

What makes them fast:
- demodulation from per-channel sums of squared weights, `(O, I) @ (I,)`, instead of modulating all weights for it;
- frozen weights on the CPU: gain, style and demodulation folded into one small weight per sample, bias inside the
  convolution, noise and activation in place, channels-last layout (`_FusedLayer`);
- its gradient needs no gradient of the weights: with y = lrelu(conv(x; s W d) + n + b), the sums over pixels of
  x dL/dx and of y dL/dy hold the gradients of style and demodulation (both maps are homogeneous);
- elsewhere (CUDA, trained weights): style on the input and demodulation on the output, one convolution per batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_SLOPE = 0.2
_STRIP_BYTES = 8 << 20
_TINY = 1e-12


def strip_rows(bias: Tensor, resolution: int) -> int:
    """How many rows of a `(C, R, R)` float32 feature map fit a band of `_STRIP_BYTES`: even, at least 16, at most R."""
    rows = _STRIP_BYTES // (4 * len(bias) * resolution)
    return min(resolution, max(16, rows // 2 * 2))


def styled_convolution(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    squared_weight: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    fir: Tensor | None,
    *,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Modulated, demodulated 3x3 convolution, noise, bias, leaky ReLU 0.2 times `gain`, clamp.

    Args:
        x: `(N, I, H, W)`.
        weight: `(O, I, 3, 3)`.
        styles: `(N, I)`.
        squared_weight: `(O, I)`, the sums of `weight` squared over the kernel.
        bias: `(O,)`.
        noise: `(1 or N, 1, H', W')` or None.
        fir: the `(4, 4)` filter to enlarge twice through, or None to keep the size.
    Returns:
        `(N, O, H', W')` in the dtype of `x`.
    """
    trains = weight.requires_grad or bias.requires_grad or (noise is not None and noise.requires_grad)
    if x.device.type != "cpu" or x.dtype != torch.float32 or trains:
        return _on_activations(x, weight, styles, bias, noise, fir, gain=gain, clamp=clamp)
    demodulation = torch.rsqrt(F.linear(styles.square(), squared_weight) + 1e-8)
    samples = []
    # Gradients of split samples are joined again; those of slices would each be padded to the whole batch.
    for i, sample in enumerate(x.split(1) if len(x) > 1 else [x]):
        own_noise = None if noise is None else noise[i if len(noise) > 1 else 0]
        samples.append(_FusedLayer.apply(sample, weight, styles[i], demodulation[i], bias, own_noise, fir, gain, clamp))
    return samples[0] if len(samples) == 1 else torch.cat(samples)


def _on_activations(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    fir: Tensor | None,
    *,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Style on the input, demodulation on the output: any device, dtype and gradient; one convolution for the batch."""
    if x.dtype == torch.float16:
        # Demodulation cancels any scale, so both factors may be brought into the range of half precision first.
        fan_in = weight[0].numel()
        weight = weight * (fan_in**-0.5 / weight.abs().amax(dim=(1, 2, 3), keepdim=True))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    demodulation = torch.rsqrt(F.linear(styles.square(), weight.square().sum(dim=(2, 3))) + 1e-8)
    x = x * styles[:, :, None, None].to(x.dtype)
    weight = weight.to(x.dtype)
    if fir is None:
        x = F.conv2d(x, weight, padding=1)
    else:
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        x = F.conv2d(x, _depthwise(fir, len(bias), x.dtype), padding=1, groups=len(bias))
    x = x * demodulation[:, :, None, None].to(x.dtype)
    offset = bias[None, :, None, None] if noise is None else bias[None, :, None, None] + noise
    x = F.leaky_relu(x + offset.to(x.dtype), _SLOPE) * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _depthwise(fir: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """`(C, 1, 4, 4)` kernel that filters each channel after an enlargement (gain 4)."""
    return (fir.flip(0, 1) * 4).to(dtype).expand(channels, 1, 4, 4)


class _FusedLayer(torch.autograd.Function):
    """One styled layer of one sample with frozen weights, float32 on the CPU."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        style: Tensor,
        demodulation: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        fir: Tensor | None,
        gain: float,
        clamp: float | None,
    ) -> Tensor:
        # A style of exactly 0 would lose its own gradient, which is read off the product below.
        style = torch.where(style.abs() < _TINY, _TINY, style)
        modulated = weight * (style[None, :] * (demodulation * gain)[:, None])[:, :, None, None]
        modulated = modulated.contiguous(memory_format=torch.channels_last)
        scaled_bias = bias * gain
        if fir is None:
            y = F.conv2d(x, modulated, scaled_bias, padding=1)
        else:
            y = F.conv_transpose2d(x, modulated.transpose(0, 1), stride=2)
            y = F.conv2d(y, _depthwise(fir, len(bias), y.dtype), scaled_bias, padding=1, groups=len(bias))
        scaled_noise = None if noise is None else noise * gain
        if scaled_noise is not None:
            y.add_(scaled_noise)
        F.leaky_relu_(y, _SLOPE)
        if clamp is not None:
            y.clamp_(-clamp, clamp)
        ctx.save_for_backward(x, y, modulated, style, demodulation, scaled_bias, scaled_noise, fir)
        ctx.clamp = clamp
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, modulated, style, demodulation, bias, noise, fir = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        if ctx.clamp is not None:
            grad = torch.ops.aten.hardtanh_backward(grad, y, -ctx.clamp, ctx.clamp)
        through = _sum_of_products(grad, y)
        grad = torch.ops.aten.leaky_relu_backward(grad, y, _SLOPE, True)
        through = through - bias * grad.sum(dim=(0, 2, 3))
        if noise is not None:
            through = through - torch.mv(grad.permute(0, 2, 3, 1).reshape(-1, len(bias)).t(), noise.flatten())
        if fir is None:
            grad_x = F.conv_transpose2d(grad, modulated, padding=1)
        else:
            kernel = _depthwise(fir, len(bias), grad.dtype).flip(2, 3)
            grad = F.conv2d(grad, kernel, padding=2, groups=len(bias))
            grad_x = F.conv2d(grad, modulated.transpose(0, 1), stride=2)
        grad_style = _sum_of_products(x, grad_x) / style
        return grad_x, None, grad_style, through / demodulation, None, None, None, None, None


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """`(C,)` sums of a * b over `(1, C, H, W)`, in bands: no full-size temporary."""
    total = torch.zeros(a.shape[1])
    rows = max(1, _STRIP_BYTES // (4 * a.shape[1] * a.shape[3]))
    for top in range(0, a.shape[2], rows):
        total += (a[:, :, top : top + rows] * b[:, :, top : top + rows]).sum(dim=(0, 2, 3))
    return total


def to_rgb(x: Tensor, weight: Tensor, styles: Tensor, bias: Tensor, *, clamp: float | None) -> Tensor:
    """Modulated 1x1 convolution without demodulation: one small matrix product per sample.

    Args:
        x: `(N, C, H, W)`.
        weight: `(3, C, 1, 1)`.
        styles: `(N, C)`.
        bias: `(3,)`.
    Returns:
        `(N, 3, H, W)` in the dtype of `x`.
    """
    batch, channels, height, width = x.shape
    modulated = (weight[None, :, :, 0, 0] * styles[:, None, :]).to(x.dtype)
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    colours = torch.baddbmm(bias.to(x.dtype), pixels, modulated.transpose(1, 2))
    image = colours.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
    return image if clamp is None else image.clamp(-clamp, clamp)


def upsample_image(image: Tensor, fir: Tensor) -> Tensor:
    """`(N, C, H, W)` to `(N, C, 2H, 2W)` through `fir`: one small convolution that yields the four phases."""
    batch, channels, height, width = image.shape
    # Phase (p, q) of the result is a 3x3 correlation of the small image with every second tap of the filter.
    taps = F.pad(fir.flip(0, 1) * 4, (1, 1, 1, 1))
    phases = torch.stack([taps[1 - p : 6 - p : 2, 1 - q : 6 - q : 2] for p in (0, 1) for q in (0, 1)])[:, None]
    planes = image.reshape(batch * channels, 1, height, width)
    out = F.pixel_shuffle(F.conv2d(planes, phases.to(image.dtype), padding=1), 2)
    return out.reshape(batch, channels, 2 * height, 2 * width)
