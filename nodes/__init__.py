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
                caches,
                code_files,
                compare,
                edit,
                edit_time,
                find_directions,
                invert,
                latents,
                load,
                load_encoder,
                picture_edit,
                pivotal,
                preview_directions,
                render,
                report,
                solve,
                stitch,
                trajectory,
                trajectory_files,
                words,
            )

            modules = (
                load,
                load_encoder,
                align,
                invert,
                pivotal,
                report,
                code_files,
                trajectory,
                trajectory_files,
                edit,
                picture_edit,
                words,
                find_directions,
                preview_directions,
                latents,
                solve,
                edit_time,
                compare,
                stitch,
                render,
                blend,
                caches,
            )
            nodes: list[type[io.ComfyNode]] = [node for module in modules for node in module.NODES]
            for node in nodes:
                node.GET_SCHEMA()
        except Exception:
            _log.exception("ComfyUI-DynODE could not be loaded")  # ComfyUI itself logs no traceback here
            raise
        return nodes
