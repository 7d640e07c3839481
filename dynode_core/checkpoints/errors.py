"""What goes wrong with a file that a user hands in."""

from __future__ import annotations


class CheckpointError(ValueError):
    """The file is damaged, of another kind, or not what its keys promise."""


class RefusedCheckpointError(CheckpointError):
    """The file asks for code that no checkpoint needs; nothing of it was run."""


class UnsupportedCheckpointError(CheckpointError):
    """The file is healthy, and of an architecture or format that this pack does not implement."""
