"""torch.compile where it works, eager where it does not (ours). It never stops anybody: Windows without a compiler,
a driver too old for Triton or a graph that can't be captured cost one log line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

_log = logging.getLogger(__name__)


class OptionalCompile:
    """A function that is compiled when first called, and stays eager after the first failure to do so.

    Args:
        function: must not change state; it is called again, eagerly, after a failure. What it works on is an argument.
        options: for `torch.compile`, e.g. `mode="reduce-overhead"` for CUDA graphs.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self._function, self._options = function, options
        self._compiled: Callable[..., Any] | None = None
        self.is_eager = False
        """Whether compiling failed."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if self.is_eager:
            return self._function(*args, **keywords)
        try:
            if self._compiled is None:
                self._compiled = torch.compile(self._function, **self._options)
            return self._compiled(*args, **keywords)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            result = self._function(
                *args, **keywords
            )  # an error of the call itself comes again, and goes to the caller
            self.is_eager = True
            _log.warning(
                "torch.compile does not work here (%s); going on without it.", str(error).split("\n", 1)[0][:200]
            )
            return result

    def __deepcopy__(self, memo: dict[int, Any]) -> OptionalCompile:
        """Copies of a generator share it: a tuned one neither compiles anew nor fails anew."""
        return self
