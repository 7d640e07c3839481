"""The parts of a StyleGAN2, under NVIDIA's names, so that the canonical state dict loads as it is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from . import ops, ops_reference

NoiseMode = Literal["const", "random", "none"]
NOISE_MODES = ("const", "random", "none")
Implementation = Literal["fast", "reference"]


class FullyConnected(nn.Module):
    """Linear layer with weights kept at unit variance and scaled when used (equalised learning rate)."""

    def __init__(self, inputs: int, outputs: int, *, activation: str = "linear", lr: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.activation, self.lr = activation, lr

    def forward(self, x: Tensor) -> Tensor:
        gain = self.lr / self.weight.shape[1] ** 0.5
        x = torch.addmm(self.bias * self.lr, x, (self.weight * gain).t())
        return ops_reference.bias_act(x, None, self.activation)


class Mapping(nn.Module):
    """z (and a class label) to w: Karras et al. 2019, section 2."""

    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_layers: int, lr: float) -> None:
        super().__init__()
        self.num_layers, self.c_dim = num_layers, c_dim
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        features = z_dim + (w_dim if c_dim else 0)
        for i in range(num_layers):
            setattr(self, f"fc{i}", FullyConnected(features, w_dim, activation="lrelu", lr=lr))
            features = w_dim
        self.register_buffer("w_avg", torch.empty(w_dim))

    def forward(self, z: Tensor, label: Tensor | None) -> Tensor:
        """`(N, z_dim)` and `(N, c_dim)` to `(N, w_dim)`."""
        x = ops_reference.normalize_2nd_moment(z)
        if self.c_dim:
            assert label is not None
            x = torch.cat([x, ops_reference.normalize_2nd_moment(self.embed(label))], dim=1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x


class StyledLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; doubles the size if `up` is 2."""

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, res: int, *, up: int, clamp: float | None, noise: bool
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.has_noise, self.resolution, self.up, self.clamp = noise, res, up, clamp
        if noise:
            self.noise_strength = nn.Parameter(torch.empty(()))
            self.register_buffer("noise_const", torch.empty(res, res))
        self._squared: tuple[tuple[int, int, torch.device], Tensor] | None = None

    def noise(self, batch: int, mode: NoiseMode, generator: torch.Generator | None) -> Tensor | None:
        """`(1 or N, 1, R, R)` float32 noise times its strength, or None."""
        if mode == "none" or not self.has_noise:
            return None
        if mode == "const":
            return (self.noise_const * self.noise_strength)[None, None]
        shape = (batch, 1, self.resolution, self.resolution)
        source = generator.device if generator is not None else self.weight.device
        drawn = torch.randn(shape, generator=generator, device=source).to(self.weight.device)
        return drawn * self.noise_strength

    def squared_weight(self) -> Tensor:
        """`(O, I)` sums of squares over the kernel, which demodulation needs; kept while the weights are frozen."""
        if self.weight.requires_grad:
            return self.weight.square().sum(dim=(2, 3))
        key = (self.weight._version, self.weight.data_ptr(), self.weight.device)
        if self._squared is None or self._squared[0] != key:
            with torch.inference_mode(False), torch.no_grad():
                self._squared = (key, self.weight.square().sum(dim=(2, 3)))
        return self._squared[1]

    def forward(
        self,
        x: Tensor,
        w: Tensor,
        noise: Tensor | None,
        fir: Tensor,
        implementation: Implementation,
        gain: float = 1.0,
    ) -> Tensor:
        styles = self.affine(w)
        clamp = None if self.clamp is None else self.clamp * gain
        if implementation == "reference":
            x = ops_reference.modulated_conv2d(x, self.weight, styles, noise=noise, up=self.up, fir=fir)
            return ops_reference.bias_act(x, self.bias, "lrelu", gain=gain * 2**0.5, clamp=clamp)
        return ops.styled_convolution(
            x,
            self.weight,
            styles,
            self.squared_weight(),
            self.bias,
            noise,
            fir if self.up == 2 else None,
            gain=gain * 2**0.5,
            clamp=clamp,
        )


class ToRGB(nn.Module):
    """Features to colours: modulated 1x1 convolution without demodulation."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, clamp: float | None) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor, implementation: Implementation) -> Tensor:
        """`(N, C, R, R)` to `(N, img_channels, R, R)` in the dtype of `x`."""
        styles = self.affine(w) / self.weight.shape[1] ** 0.5
        if implementation == "reference":
            x = ops_reference.modulated_conv2d(x, self.weight, styles, demodulate=False)
            return ops_reference.bias_act(x, self.bias, clamp=self.clamp)
        return ops.to_rgb(x, self.weight, styles, self.bias, clamp=self.clamp)


class Skip(nn.Module):
    """The shortcut of a residual block: 1x1 convolution at twice the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1))

    def forward(self, x: Tensor, fir: Tensor, gain: float) -> Tensor:
        weight = (self.weight * (gain / self.weight.shape[1] ** 0.5)).to(x.dtype)
        # A 1x1 convolution and the enlargement commute; at the small size it is a quarter of the work.
        return ops_reference.upsample2d(torch.nn.functional.conv2d(x, weight), fir)
