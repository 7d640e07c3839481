"""Generators: one protocol, one module per architecture."""

from .protocol import Generator

__all__ = ["Generator"]
