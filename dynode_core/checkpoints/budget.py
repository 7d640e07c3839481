"""How much work and memory one file may cost, in proportion to its own size."""

from __future__ import annotations

from .errors import CheckpointError

MAX_OPERATIONS = 4_000_000
"""Pickle operations per file. A full-size training checkpoint with optimiser state needs about 200 000."""

SPARE_BYTES = 64 << 20
"""What a file of any size may ask for on top of a multiple of its size."""


class Budget:
    """Counts what a file has asked for. Shared by every stream nested in the file."""

    def __init__(self, file_bytes: int) -> None:
        self._bytes_left = 4 * file_bytes + SPARE_BYTES
        self._operations_left = MAX_OPERATIONS

    def spend_bytes(self, count: int) -> None:
        """Raise CheckpointError once the file has asked for far more memory than it could honestly need."""
        self._bytes_left -= count
        if count < 0 or self._bytes_left < 0:
            raise CheckpointError(
                "This file asks for more memory than its size explains (its tensors overlap or repeat). "
                "It is damaged or made to exhaust the machine; download it again from its original source."
            )

    def spend_operations(self, count: int) -> None:
        """Raise CheckpointError once the file holds more pickle operations than any checkpoint needs."""
        self._operations_left -= count
        if self._operations_left < 0:
            raise CheckpointError(
                f"This file holds more than {MAX_OPERATIONS} pickle operations. It is damaged or no checkpoint."
            )
