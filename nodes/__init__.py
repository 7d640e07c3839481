"""ComfyUI nodes: thin adapters around `dynode_core`, one file per stage."""

from __future__ import annotations

import logging

from comfy_api.latest import ComfyExtension, io

from . import model_folders

_log = logging.getLogger(__name__)


class DynODEExtension(ComfyExtension):
    """What ComfyUI asks for the nodes of this pack."""

    async def on_load(self) -> None:
        model_folders.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        try:
            from . import (
                align,
                blend,
                code_files,
                compare,
                edit,
                invert,
                latents,
                load,
                render,
                solve,
                stitch,
                trajectory,
                trajectory_files,
            )

            modules = (
                load,
                align,
                invert,
                code_files,
                trajectory,
                trajectory_files,
                edit,
                latents,
                solve,
                compare,
                stitch,
                render,
                blend,
            )
            nodes: list[type[io.ComfyNode]] = [node for module in modules for node in module.NODES]
            for node in nodes:
                node.GET_SCHEMA()
        except Exception:
            _log.exception("ComfyUI-DynODE could not be loaded")  # ComfyUI itself logs no traceback here
            raise
        return nodes
