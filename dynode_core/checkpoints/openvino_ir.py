"""Read the constants of an OpenVINO IR network (`.xml` + `.bin`) without OpenVINO.

The IR is an XML graph whose `Const` layers point into a binary file by element type, shape, offset and size.
Nothing in it is executed here. Layout facts: OpenVINO IR version 10/11 documentation; the reader is ours.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

_ELEMENT_TYPES = {"f32": np.float32, "f16": np.float16, "i64": np.int64, "i32": np.int32}
_MAX_XML_BYTES = 64 * 2**20


def read_constants(xml_path: Path) -> dict[str, np.ndarray]:
    """Read every constant of the network, in the order in which the file lists them.

    Args:
        xml_path: the `.xml` file; the weights are read from the `.bin` file beside it.
    Returns:
        name -> array. Constants of element types that hold no weights are left out.
    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: the XML is not an IR network, or points outside the `.bin` file (truncated download).
    """
    bin_path = xml_path.with_suffix(".bin")
    for path in (xml_path, bin_path):
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: an OpenVINO network is a pair of .xml and .bin files.")
    if xml_path.stat().st_size > _MAX_XML_BYTES:
        raise ValueError(
            f"{xml_path} is larger than {_MAX_XML_BYTES // 2**20} MiB: not an OpenVINO network description."
        )
    text = xml_path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError(f"{xml_path} declares XML entities, which an OpenVINO network never does. Refused.")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{xml_path} is not well-formed XML ({error}): download it again.") from error
    weights = bin_path.read_bytes()
    constants: dict[str, np.ndarray] = {}
    for layer in root.iter("layer"):
        data = layer.find("data")
        if layer.get("type") != "Const" or data is None or data.get("element_type") not in _ELEMENT_TYPES:
            continue
        name = layer.get("name", "")
        constants[name] = _constant(name, data.attrib, weights, bin_path)
    if not constants:
        raise ValueError(f"{xml_path} holds no constants: not an OpenVINO network with weights.")
    return constants


def _constant(name: str, attributes: dict[str, str], weights: bytes, bin_path: Path) -> np.ndarray:
    try:
        shape = tuple(int(size) for size in re.findall(r"\d{1,12}", attributes.get("shape", "")))
        offset, size = int(attributes["offset"]), int(attributes["size"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"Constant {name!r} of {bin_path.with_suffix('.xml')} does not say where its numbers lie ({error}): the "
            "file is damaged. Download it again."
        ) from error
    dtype = np.dtype(_ELEMENT_TYPES[attributes["element_type"]])
    if offset < 0 or size < 0 or offset + size > len(weights):
        raise ValueError(
            f"Constant {name!r} should lie at bytes {offset} to {offset + size} of {bin_path}, but the file has "
            f"{len(weights)} bytes: it is truncated. Download it again."
        )
    if math.prod(shape) * dtype.itemsize != size:
        raise ValueError(
            f"Constant {name!r} of {bin_path} has shape {shape} but {size} bytes: the pair does not belong together."
        )
    return np.frombuffer(weights, dtype, count=size // dtype.itemsize, offset=offset).reshape(shape).copy()
