"""The input `layers`, which several nodes share: which rows of a code an edit acts on."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynode_core.editing.latent import LAYER_PRESETS, layer_mask

_MOST_ROWS = 1000
"""More than any generator has."""
_ROWS = "rows such as '0-7' or '2,4-6'"
_CHOICES = f"{', '.join(repr(name) for name in LAYER_PRESETS)}, or {_ROWS}"


def layers_input(what: str, *, advanced: bool = True) -> io.Input:
    """`what` begins the tooltip: "Rows of the code that are changed"."""
    return io.String.Input("layers", default="all", tooltip=f"{what}: {_CHOICES}.", advanced=advanced)


def check_layers(layers: str) -> bool | str:
    """True, or what is wrong with a layer range, before the generator is known."""
    try:
        layer_mask(layers, _MOST_ROWS)
    except ValueError:
        return f"layers should be one of {_CHOICES}, but is {layers!r}."
    return True
