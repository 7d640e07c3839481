"""The edit of one clip applied to another."""

from __future__ import annotations

from dataclasses import replace

from ..types import EditedLatent
from .latent import edit_label, layer_mask
from .mixing import latent_for


def transfer_edit(edit: EditedLatent, target: EditedLatent, strength: float = 1.0, layers: str = "all") -> EditedLatent:
    """Add to `target` what `edit` added to its own code, and nothing else of that person.

    Args:
        edit: its difference from its own base code is what moves over.
        strength: factor on it.
        layers: see `apply_direction`.
    Raises:
        ValueError: nothing was edited, the codes are of generators that share none, or `layers` names no rows.
    """
    before = latent_for(replace(edit, w_plus_0=edit.base_w_plus_0, tuning=None), target.family, target.w_plus_0.shape)
    after = latent_for(replace(edit, tuning=None), target.family, target.w_plus_0.shape)
    change = after.w_plus_0 - before.w_plus_0
    if not bool(change.any()):
        raise ValueError(
            "The edit to transfer changes nothing: its code is the unedited one. Connect the output of Edit First "
            "Latent, not a trajectory."
        )
    mask = layer_mask(layers, len(change))[:, None]
    what = ", ".join(edit.edits) or "edit"
    label = edit_label("transferred", strength, layers) + f" ({what})"
    return replace(target, w_plus_0=target.w_plus_0 + strength * mask * change, edits=(*target.edits, label))
