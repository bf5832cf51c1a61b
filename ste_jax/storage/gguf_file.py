"""Reads GGUF files: metadata, and the types, shapes and places of tensors.

Every count and length is compared with the bytes that are left in the file before anything of that size is
made, so that a damaged or hostile header ends in an error at once.
"""

import dataclasses
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from ste_jax.errors import SteError

# Metadata of other keys (names, licences, statistics of the quantisation) changes no result and is skipped.
_KEYS = ("general.architecture", "general.alignment", "general.type", "llama.", "tokenizer.", "split.")
_MOST_BYTES = 2**26  # of a header; that of a model with 256,000 tokens takes 2**24
_MOST_DIMENSIONS = 4
# Models have less than a hundred keys, some thousand tensors, and a few hundred thousand tokens and merges.
_MOST_KEYS, _MOST_TENSORS, _MOST_STRINGS = 10_000, 65_536, 2**21
_SCALARS = ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", None, None, "<Q", "<q", "<d")
_STRING, _ARRAY = 8, 9
_DOWNLOAD = "download or convert it again"


@dataclasses.dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file.

    Attributes:
      kind: Type of its values.
      shape: Shape in the order of NumPy: the last axis is contiguous.
      offset: First byte in the file.
      size: Number of bytes.
    """

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int


class GgufFile:
    """A GGUF file of version 2 or 3.

    Attributes:
      path: File.
      fields: Metadata by key: numbers, strings, or lists of them.
      tensors: Tensors by name.
    """

    def __init__(self, path: Path):
        """Reads the header.

        Raises:
          SteError: "file_not_found", "model_damaged", or "model_unsupported" for another version.
        """
        self.path = path
        try:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self.fields, self.tensors = _Header(data).read()
        except FileNotFoundError as error:
            raise SteError("file_not_found", f"{path}: no such file; check the path") from error
        except SteError as error:
            raise SteError(error.code, f"{path}: {error}") from error
        except (ValueError, OSError) as error:  # an empty file, a folder, or invalid UTF-8
            raise SteError("model_damaged", f"{path}: not a GGUF file ({error}); {_DOWNLOAD}") from error

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor as float32.

        Raises:
          SteError: "model_unsupported" for a type that the gguf package cannot read.
        """
        tensor = self.tensors[name]
        raw = np.memmap(self.path, np.uint8, "r", tensor.offset, (tensor.size,))
        try:
            values = dequantize(raw.reshape(*tensor.shape[:-1], -1), tensor.kind)
        except NotImplementedError as error:
            raise SteError(
                "model_unsupported",
                f"{self.path}: {name} is of type {tensor.kind.name}, which the gguf package cannot read",
            ) from error
        return values.reshape(tensor.shape)


class _Header:
    """Position in the header of a GGUF file."""

    def __init__(self, data: mmap.mmap):
        self._data, self._at, self._strings = data, 0, 0
        self._end = min(len(data), _MOST_BYTES)

    def read(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        self._check_version()
        tensors, count = self._count(24), self._count(13)
        if tensors > _MOST_TENSORS or count > _MOST_KEYS:
            raise _damaged(f"{tensors} tensors and {count} keys are announced, more than any model has")
        fields = self._fields(count)
        infos = self._tensor_infos(tensors)
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise _damaged(f"general.alignment is {alignment!r}, not a power of two")
        start = -(-self._at // alignment) * alignment
        return fields, {name: self._tensor(name, start, *info) for name, info in infos.items()}

    def _check_version(self) -> None:
        if self._take(4) != b"GGUF":
            raise _damaged("not a GGUF file")
        version = self._number("<I")
        if version & 0xFFFF == 0:
            raise SteError("model_unsupported", "a big-endian GGUF file; convert the model again")
        if version == 1:
            raise SteError(
                "model_unsupported",
                "version 1 of GGUF, which is no longer in use; convert the original model again with a "
                "current llama.cpp",
            )
        if version not in (2, 3):
            raise SteError("model_unsupported", f"version {version} of GGUF; versions 2 and 3 are supported")

    def _fields(self, count: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            value = self._value(self._number("<I"), keep=key.startswith(_KEYS), where=key)
            if key in fields:
                raise _damaged(f"the key {key} occurs twice")
            if key.startswith(_KEYS):
                fields[key] = value
        return fields

    def _value(self, kind: int, *, keep: bool, where: str) -> Any:
        if kind == _STRING:
            return self._string() if keep else self._take(self._count(1))
        if kind == _ARRAY:
            return self._array(keep=keep, where=where)
        return self._number(_code(kind, where))

    def _array(self, *, keep: bool, where: str) -> list:
        kind = self._number("<I")
        if kind == _STRING:
            count = self._count(8)
            self._strings += count
            if self._strings > _MOST_STRINGS:
                raise _damaged(f"{where} has {count} texts, more than any vocabulary")
            return [self._value(kind, keep=keep, where=where) for _ in range(count)]
        code = _code(kind, where)
        width = struct.calcsize(code)
        values = self._take(self._count(width) * width)
        return np.frombuffer(values, np.dtype(code)).tolist() if keep else []

    def _tensor_infos(self, count: int) -> dict[str, tuple[tuple[int, ...], int, int]]:
        infos: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            name, dimensions = self._string(), self._number("<I")
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise _damaged(f"tensor {name} has {dimensions} dimensions")
            if name in infos:
                raise _damaged(f"tensor {name} occurs twice")
            shape = tuple(self._number("<Q") for _ in range(dimensions))
            infos[name] = shape[::-1], self._number("<I"), self._number("<Q")
        return infos

    def _tensor(self, name: str, start: int, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        try:
            known = GGMLQuantizationType(kind)
            block, width = GGML_QUANT_SIZES[known]
        except (ValueError, KeyError) as error:
            raise SteError(
                "model_unsupported", f"tensor {name} is of type {kind}, which the gguf package cannot read"
            ) from error
        size = math.prod(shape) // block * width
        if min(shape) < 1 or shape[-1] % block or start + offset + size > len(self._data):
            raise _damaged(f"truncated: tensor {name} of shape {shape} does not lie in the file")
        return GgufTensor(known, shape, start + offset, size)

    def _string(self) -> str:
        return self._take(self._count(1)).decode()

    def _count(self, width: int) -> int:
        """Returns a number of things that take at least `width` bytes each."""
        count = self._number("<Q")
        if count * width > self._end - self._at:
            raise _damaged(f"truncated: {count} entries are announced, {self._end - self._at} bytes follow")
        return count

    def _number(self, code: str) -> Any:
        return struct.unpack(code, self._take(struct.calcsize(code)))[0]

    def _take(self, count: int) -> bytes:
        if count > self._end - self._at:
            raise _damaged("truncated")
        self._at += count
        return self._data[self._at - count : self._at]


def _code(kind: int, where: str) -> str:
    """Returns the format of a scalar type, as `struct` and NumPy name it."""
    code = _SCALARS[kind] if kind < len(_SCALARS) else None
    if code is None:
        raise _damaged(f"{where} is of the unknown type {kind}")
    return code


def _damaged(reason: str) -> SteError:
    return SteError("model_damaged", f"{reason}; {_DOWNLOAD}")
