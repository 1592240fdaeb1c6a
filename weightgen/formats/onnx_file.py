"""ONNX models: their initialisers, which are the weights; the extra `onnx` brings the library that reads them."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from weightgen.checkpoint import KINDS, Card
from weightgen.errors import CorruptFileError, MissingDataError
from weightgen.formats.format import Network, damaged, register
from weightgen.formats.tensors import clean, facts, made_with, network, once

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2}
"""The fields of an ONNX model and how each is written; ONNX has no magic number to be known by."""

MAXIMUM = 2 * 2**30


def _recognises(path: Path, head: bytes) -> bool:
    place, seen = 0, set()
    while place < len(head):
        tag, place = _varint(head, place)
        field, wire = tag >> 3, tag & 7
        if FIELDS.get(field) != wire or (not seen and field != 1):
            return False
        seen.add(field)
        value, place = _varint(head, place)
        if field == 1 and not 1 <= value <= 100:
            return False
        place += value if wire == 2 else 0
    return 7 in seen and len(seen) > 1


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of protobuf and the place behind it."""
    value = 0
    for index in range(10):
        byte = content[place + index]
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, place + index + 1
    raise ValueError("no number")


@register("onnx", "ONNX model", _recognises)
def read(path: Path) -> list[Network]:
    """The one graph of a model."""
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingDataError(
            "reading ONNX needs the library of that name",
            where=path,
            remedy="install it: pip install 'weightgen[onnx]'",
        ) from error
    if path.stat().st_size > MAXIMUM:
        raise ValueError("it is too long")
    try:
        model = onnx.load_model(str(path), format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise damaged(path, str(error), "ONNX model") from error
    initialisers = once((one.name, one) for one in model.graph.initializer)
    kinds = {name: (_kind(one), tuple(one.dims)) for name, one in initialisers.items()}
    settings = facts({
        "producer": model.producer_name, "producer_version": model.producer_version, "ir_version": model.ir_version,
        "graph": model.graph.name, **{one.key: one.value for one in model.metadata_props},
    })  # fmt: skip
    card = Card(origin="ingested", hyperparameters=settings, made_with=made_with("onnx", path))
    return [Network("", network(kinds, lambda name: _tensor(path, initialisers[name]), card, path))]


def _kind(initialiser: Any) -> str:
    from onnx import TensorProto

    name = TensorProto.DataType.Name(initialiser.data_type).lower()
    kind = {"float": "float32", "double": "float64"}.get(name, name)
    if kind not in KINDS:
        raise CorruptFileError(f"the tensor '{clean(initialiser.name)}' is of a kind that is not stored", got=kind)
    return kind


def _tensor(path: Path, initialiser: Any) -> "Tensor":
    import torch
    from onnx import TensorProto, numpy_helper

    size = int(numpy.prod(initialiser.dims, dtype=object))
    if initialiser.data_location == TensorProto.EXTERNAL:
        initialiser = _with_external(path, initialiser, size)
    lists = (getattr(initialiser, f"{each}_data") for each in ("float", "int32", "int64", "double"))
    values = (len(initialiser.raw_data), *map(len, lists))
    if size < 0 or size > max(values) * 2:
        raise damaged(path, f"a tensor of {size:,} values in {max(values):,} bytes", "ONNX model")
    kind = _kind(initialiser)
    if kind == "bfloat16":
        raw = numpy.frombuffer(initialiser.raw_data, numpy.int16).reshape(tuple(initialiser.dims))
        return torch.from_numpy(raw.copy()).view(torch.bfloat16)
    try:
        array = numpy_helper.to_array(initialiser)
    except (ValueError, TypeError) as error:
        raise damaged(path, str(error), "ONNX model") from error
    return torch.from_numpy(numpy.array(array))


def _with_external(path: Path, initialiser: Any, size: int) -> Any:
    """The tensor with its values read from the file that it names, which must lie beside the model."""
    entries = {one.key: one.value for one in initialiser.external_data}
    name = entries.get("location", "")
    beside = path.parent / name
    if not re.fullmatch(r"[\w.+-]+", name) or name.startswith(".") or beside.is_symlink() or not beside.is_file():
        raise CorruptFileError("a tensor lies in a file that is not beside the model", where=path, got=repr(name)[:80])
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", beside.stat().st_size))
    if not 0 <= offset <= offset + length <= beside.stat().st_size or length > 8 * max(size, 1):
        raise damaged(path, f"{length:,} bytes of '{name}' from {offset:,}", "ONNX model")
    copy = type(initialiser)()
    copy.CopyFrom(initialiser)
    copy.data_location = 0
    with open(beside, "rb") as file:
        file.seek(offset)
        copy.raw_data = file.read(length)
    return copy
