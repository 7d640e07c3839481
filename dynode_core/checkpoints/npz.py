"""Arrays of a .npz archive (NumPy's `savez` and `savez_compressed`), without NumPy's own unpickling.

Only members that are asked for are unpacked, and never more bytes than a limit: a small archive can unpack to a huge
one.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from .budget import SPARE_BYTES, Budget
from .errors import CheckpointError
from .numpy_values import read_npy
from .tensors import array_tensor

_SUFFIX = ".npy"


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in the archive, in its order.

    Raises:
        CheckpointError: it is no zip archive, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(_SUFFIX) for name in archive.namelist() if name.endswith(_SUFFIX)]
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} is cut short or damaged ({error}). Get it again.") from error


def load_npz(path: Path, names: Iterable[str], *, most_bytes: int = SPARE_BYTES) -> dict[str, Tensor]:
    """The arrays `names` that are in the archive, as CPU tensors.

    Args:
        most_bytes: an array that unpacks to more is refused.
    Raises:
        CheckpointError: damaged, too large, or not plain numbers.
    """
    there, found = set(npz_names(path)), {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                if name not in there:
                    continue
                with archive.open(name + _SUFFIX) as member:
                    data = member.read(most_bytes + 1)
                if len(data) > most_bytes:
                    raise CheckpointError(
                        f"{path.name}: the array {name!r} unpacks to more than {most_bytes} bytes, which no direction "
                        "needs."
                    )
                found[name] = array_tensor(read_npy(memoryview(data), Budget(len(data))))
    except CheckpointError as error:
        raise type(error)(f"{path.name}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"{path.name} is cut short or damaged ({error}). Get it again.") from error
    return found
