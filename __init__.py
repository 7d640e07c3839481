"""ComfyUI-DynODE: the entry point that ComfyUI loads. Everything else is imported when ComfyUI asks for the nodes."""

from __future__ import annotations

import logging
from typing import Any

WEB_DIRECTORY = "./web"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> Any:
    """Return the `ComfyExtension` with all nodes.

    ComfyUI logs a failing entry point without its traceback, so the traceback is logged here before the error goes on.
    """
    try:
        from .nodes import DynODEExtension
    except Exception:
        logging.getLogger(__name__).exception("ComfyUI-DynODE could not be loaded")
        raise
    return DynODEExtension()
