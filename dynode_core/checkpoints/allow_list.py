"""Every name that a checkpoint may mention, and what it becomes. Whatever is not here is refused.

A name with a builder becomes a value of ours; a name with None becomes an inert `Record`, which holds data and does
nothing. Found in files of NVIDIA (2020-23), rosinality, e4e, pSp, ReStyle, PTI, STIT, MobileStyleGAN and StyleCLIP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .budget import Budget
from .errors import CheckpointError
from .numpy_values import PickledArray, PickledDtype, array_from_bytes
from .safe_pickle import Builder, check_key
from .torch_values import STORAGE_DTYPES, rebuild_parameter, rebuild_subclass, rebuild_tensor


def _dictionary(args: tuple[Any, ...], budget: Budget) -> dict[Any, Any]:
    if not args:
        return {}
    if len(args) > 1 or not isinstance(args[0], (dict, list)):
        raise CheckpointError("The file makes a dictionary out of something else.")
    budget.spend_operations(len(args[0]))
    pairs = args[0].items() if isinstance(args[0], dict) else args[0]
    if not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise CheckpointError("The file makes a dictionary out of something else than pairs.")
    return {check_key(key): value for key, value in pairs}


def _set(args: tuple[Any, ...], budget: Budget) -> set[Any]:
    if not args:
        return set()
    if len(args) > 1 or not isinstance(args[0], (list, tuple, set)):
        raise CheckpointError("The file makes a set out of something else.")
    budget.spend_operations(len(args[0]))
    return {check_key(value) for value in args[0]}


def _encode(args: tuple[Any, ...], budget: Budget) -> bytes:
    # Protocol 2 has no bytes: they travel as latin-1 text with a call that encodes it.
    if not args or not isinstance(args[0], str) or (len(args) > 1 and args[1] not in ("latin1", "latin-1")):
        raise CheckpointError("The file encodes something that is no latin-1 text.")
    budget.spend_bytes(len(args[0]))
    return args[0].encode("latin-1")


def _byte_array(args: tuple[Any, ...], budget: Budget) -> bytes | memoryview:
    if not args:
        return b""
    if len(args) > 1 and args[1] in ("latin1", "latin-1"):
        return _encode(args, budget)
    if not isinstance(args[0], (bytes, memoryview)):
        raise CheckpointError("The file makes bytes out of something else.")
    return args[0]


def _array(args: tuple[Any, ...], budget: Budget) -> PickledArray:
    return PickledArray(budget)


def _array_from_buffer(args: tuple[Any, ...], budget: Budget) -> PickledArray:
    # Protocol 5: numpy.core.numeric._frombuffer(bytes, dtype, shape, order).
    if len(args) < 3 or not isinstance(args[1], PickledDtype):
        raise CheckpointError("The file holds an array with a malformed description.")
    made = PickledArray(budget)
    fortran = len(args) > 3 and args[3] == "F"
    made.array = array_from_bytes(args[0], args[1].dtype, args[2], fortran=fortran, budget=budget)
    return made


def _scalar(args: tuple[Any, ...], budget: Budget) -> Any:
    if len(args) != 2 or not isinstance(args[0], PickledDtype):
        raise CheckpointError("The file holds a NumPy number with a malformed description.")
    return array_from_bytes(args[1], args[0].dtype, (), fortran=False, budget=budget).item()


def _dtype(args: tuple[Any, ...], budget: Budget) -> PickledDtype:
    return PickledDtype(args[0] if args else None)


def _slice(args: tuple[Any, ...], budget: Budget) -> tuple[Any, ...]:
    return args


def _instance(args: tuple[Any, ...], budget: Budget) -> Any:
    # copyreg._reconstructor(class, object, None): how protocols 0 and 1 make a plain object.
    from .safe_pickle import Record, Symbol

    if not args or not isinstance(args[0], Symbol):
        raise CheckpointError("The file makes an object out of something that is no class.")
    builder = ALLOWED[args[0].name]
    return Record(args[0]) if builder is None else builder((), budget)


_BUILDERS: dict[str, Callable[[tuple[Any, ...], Budget], Any]] = {
    "collections.OrderedDict": _dictionary,
    "dnnlib.util.EasyDict": _dictionary,
    "builtins.dict": _dictionary,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytes": _byte_array,
    "builtins.bytearray": _byte_array,
    "builtins.slice": _slice,
    "_codecs.encode": _encode,
    "copy_reg._reconstructor": _instance,
    "copyreg._reconstructor": _instance,
    "numpy.dtype": _dtype,
    "numpy.core.multiarray._reconstruct": _array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
    "torch._utils._rebuild_tensor_v2": rebuild_tensor,
    "torch._utils._rebuild_tensor": rebuild_tensor,
    "torch._utils._rebuild_parameter": rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": rebuild_subclass,
}

_INERT = (
    "builtins.object",
    "numpy.ndarray",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    "torch.Size",
    "torch.device",
    "torch.float32",
    "torch.float16",
    # Modules pickled whole by NVIDIA's persistence; the source text inside stays text.
    "torch_utils.persistence._reconstruct_persistent_obj",
    # TensorFlow-era networks; likewise.
    "dnnlib.tflib.network.Network",
    # Options that training scripts save beside the weights.
    "argparse.Namespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib.PurePosixPath",
    "pathlib.PureWindowsPath",
    "collections.defaultdict",
    "addict.addict.Dict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
)

ALLOWED: dict[str, Builder | None] = {
    **dict.fromkeys(STORAGE_DTYPES),
    **dict.fromkeys(_INERT),
    **_BUILDERS,
}
