"""The operations of StyleGAN2, each as its definition says: slow, and the oracle for `ops`.

Conventions are those of NVIDIA's stylegan2-ada-pytorch (`torch_utils.ops`), whose public results these functions
reproduce (golden numbers in the tests); the code is ours. Images are `(N, C, H, W)`, filters `(FH, FW)` float32.
`flip_filter=False` and `flip_weight=False` mean true convolution, True means correlation (what `F.conv2d` does).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


def make_filter(taps: Sequence[float] = RESAMPLE_TAPS, *, device: torch.device | str = "cpu") -> Tensor:
    """`(K, K)` float32 outer product of `taps`, its sum scaled to 1."""
    line = torch.tensor(taps, dtype=torch.float32, device=device)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Tensor,
    fir: Tensor | None,
    *,
    up: int = 1,
    down: int = 1,
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Insert zeros, pad, filter, keep every `down`-th pixel.

    Args:
        x: `(N, C, H, W)`.
        fir: `(FH, FW)`, or None for no filter.
        up: each pixel becomes the top left of an `up` by `up` block of zeros.
        padding: left, right, top, bottom in pixels of the enlarged image; negative values cut.
        gain: factor on the result.
    Returns:
        `(N, C, H', W')`, H' = (H * up + top + bottom - FH) // down + 1.
    """
    batch, channels, height, width = x.shape
    if up > 1:
        spread = x.new_zeros(batch, channels, height, up, width, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.reshape(batch, channels, height * up, width * up)
    x = F.pad(x, padding)
    if fir is not None:
        kernel = fir if flip_filter else fir.flip(0, 1)
        kernel = (kernel * gain).to(x.dtype)[None, None].expand(channels, 1, *fir.shape)
        x = F.conv2d(x, kernel, groups=channels)
    else:
        x = x * gain
    return x[:, :, ::down, ::down]


def upsample2d(x: Tensor, fir: Tensor, *, up: int = 2) -> Tensor:
    """`(N, C, H, W)` to `(N, C, up*H, up*W)`, brightness kept."""
    fir_h, fir_w = fir.shape
    padding = ((fir_w + up - 1) // 2, (fir_w - up) // 2, (fir_h + up - 1) // 2, (fir_h - up) // 2)
    return upfirdn2d(x, fir, up=up, padding=padding, gain=up * up)


def downsample2d(x: Tensor, fir: Tensor, *, down: int = 2) -> Tensor:
    """`(N, C, H, W)` to `(N, C, H/down, W/down)`."""
    fir_h, fir_w = fir.shape
    padding = ((fir_w - down + 1) // 2, (fir_w - down) // 2, (fir_h - down + 1) // 2, (fir_h - down) // 2)
    return upfirdn2d(x, fir, down=down, padding=padding)


def filter2d(x: Tensor, fir: Tensor) -> Tensor:
    """`(N, C, H, W)` filtered, size kept."""
    fir_h, fir_w = fir.shape
    return upfirdn2d(x, fir, padding=(fir_w // 2, (fir_w - 1) // 2, fir_h // 2, (fir_h - 1) // 2))


_ACTIVATIONS = {
    "linear": (lambda x: x, 1.0),
    "relu": (torch.relu, 2**0.5),
    "lrelu": (lambda x: F.leaky_relu(x, 0.2), 2**0.5),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "elu": (F.elu, 1.0),
    "selu": (F.selu, 1.0),
    "softplus": (F.softplus, 1.0),
    "swish": (lambda x: torch.sigmoid(x) * x, 2**0.5),
}


def bias_act(
    x: Tensor, bias: Tensor | None, activation: str = "linear", *, gain: float | None = None, clamp: float | None = None
) -> Tensor:
    """Add a bias per channel, activate, scale, clamp. `gain` None means the activation's own (sqrt 2 for lrelu).

    Args:
        x: `(N, C, ...)`.
        bias: `(C,)` or None.
    """
    if bias is not None:
        x = x + bias.to(x.dtype).reshape(1, -1, *[1] * (x.ndim - 2))
    function, own_gain = _ACTIVATIONS[activation]
    x = function(x) * (own_gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Scale so that the mean square along `dim` is 1."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def conv2d_resample(
    x: Tensor,
    weight: Tensor,
    fir: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """2-D convolution between an enlargement and a reduction, both through `fir`.

    Args:
        x: `(N, C_in, H, W)`.
        weight: `(C_out, C_in / groups, KH, KW)`.
        padding: of the convolution, in pixels of the enlarged image.
        flip_weight: True correlates (as `F.conv2d`), False convolves.
    """
    left = right = top = bottom = padding
    fir_h, fir_w = fir.shape if fir is not None else (1, 1)
    if up > 1:
        left, right = left + (fir_w + up - 1) // 2, right + (fir_w - up) // 2
        top, bottom = top + (fir_h + up - 1) // 2, bottom + (fir_h - up) // 2
    if down > 1:
        left, right = left + (fir_w - down + 1) // 2, right + (fir_w - down) // 2
        top, bottom = top + (fir_h - down + 1) // 2, bottom + (fir_h - down) // 2
    x = upfirdn2d(
        x,
        fir if up > 1 else None,
        up=up,
        padding=(left, right, top, bottom),
        flip_filter=flip_filter,
        gain=up * up,
    )
    x = F.conv2d(x, weight if flip_weight else weight.flip(2, 3), groups=groups)
    if down > 1:
        x = upfirdn2d(x, fir, down=down, flip_filter=flip_filter)
    return x


def transposed_conv2d_up2(x: Tensor, weight: Tensor, fir: Tensor, *, groups: int = 1) -> Tensor:
    """`conv2d_resample(up=2, padding=1, flip_weight=False)` for 3x3 weights, as a transposed convolution, then `fir`.

    The arrangement of the public code: a quarter of the multiplications of the definition.
    """
    out_channels, in_per_group = weight.shape[0] // groups, weight.shape[1]
    kernel = weight.reshape(groups, out_channels, in_per_group, 3, 3).transpose(1, 2)
    kernel = kernel.reshape(groups * in_per_group, out_channels, 3, 3)
    x = F.conv_transpose2d(x, kernel, stride=2, groups=groups)
    return upfirdn2d(x, fir, padding=(1, 1, 1, 1), gain=4)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    up: int = 1,
    fir: Tensor | None = None,
    demodulate: bool = True,
) -> Tensor:
    """One convolution whose weights differ per sample, as a grouped convolution (Karras et al. 2020, section 2.2).

    Args:
        x: `(N, C_in, H, W)`.
        weight: `(C_out, C_in, K, K)`; K odd, padding keeps the size.
        styles: `(N, C_in)` factors on the input channels.
        noise: added to the result, broadcastable to `(N, C_out, up*H, up*W)`.
        up: 1, or 2 for enlargement through `fir`.
        demodulate: scale each output channel to unit expected variance.
    Returns:
        `(N, C_out, up*H, up*W)`.
    """
    batch = len(x)
    out_channels, in_channels, kernel_h, kernel_w = weight.shape
    if x.dtype == torch.float16 and demodulate:
        # Demodulation cancels any scale, so both factors may be brought into the range of half precision first.
        weight = weight * ((in_channels * kernel_h * kernel_w) ** -0.5 / weight.abs().amax(dim=(1, 2, 3), keepdim=True))
        styles = styles / styles.abs().amax(dim=1, keepdim=True)
    per_sample = weight[None] * styles.reshape(batch, 1, -1, 1, 1)
    if demodulate:
        per_sample = per_sample * (per_sample.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    grouped = per_sample.reshape(batch * out_channels, in_channels, kernel_h, kernel_w).to(x.dtype)
    folded = x.reshape(1, batch * in_channels, *x.shape[2:])
    if up == 1:
        out = F.conv2d(folded, grouped, padding=kernel_h // 2, groups=batch)
    elif kernel_h == 3 and fir is not None:
        out = transposed_conv2d_up2(folded, grouped, fir, groups=batch)
    else:
        out = conv2d_resample(folded, grouped, fir, up=up, padding=kernel_h // 2, groups=batch, flip_weight=False)
    out = out.reshape(batch, out_channels, *out.shape[2:])
    return out if noise is None else out + noise.to(out.dtype)
