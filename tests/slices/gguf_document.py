"""A GGUF taken apart and put together again, so that a test can change it in between."""

import struct
from copy import deepcopy
from dataclasses import dataclass
from math import prod
from typing import Any

U16, U32, I32, F32, BOOL, STR, ARRAY, U64 = 2, 4, 5, 6, 7, 8, 9, 10
FORMS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
BLOCKS = {  # ggml type -> (weights, bytes) of a block
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292),
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110),
    22: (256, 82), 23: (256, 136), 24: (1, 1), 26: (1, 4), 28: (1, 8), 29: (256, 56), 30: (1, 2),
    34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip


@dataclass
class Value:
    """A value with its GGUF type; an array's items have the type `inner`. `name` overrides its key."""

    kind: int
    value: Any
    inner: int = U32
    name: str | None = None


@dataclass(frozen=True)
class Blob:
    """A tensor; `name` and `offset` override where it is filed and where it lies."""

    shape: tuple[int, ...]
    type: int
    data: bytes
    name: str | None = None
    offset: int | None = None


@dataclass
class Document:
    """A GGUF taken apart."""

    keys: dict[str, Value]
    tensors: dict[str, Blob]

    @property
    def arch(self) -> str:
        return str(self.keys["general.architecture"].value.decode())

    def copy(self) -> "Document":
        return deepcopy(self)

    def set(self, key: str, value: Value) -> None:
        self.keys[key] = value


def parse(raw: bytes) -> Document:
    """Take a well-formed GGUF apart."""
    tensors, keys = struct.unpack_from("<QQ", raw, 8)
    at, values, infos = 24, {}, []
    for _ in range(keys):
        key, at = _text(raw, at)
        (kind,) = struct.unpack_from("<I", raw, at)
        values[key.decode()], at = _value(raw, at + 4, kind)
    for _ in range(tensors):
        name, at = _text(raw, at)
        (axes,) = struct.unpack_from("<I", raw, at)
        *shape, kind, offset = struct.unpack_from(f"<{axes}QIQ", raw, at + 4)
        infos.append((name.decode(), tuple(shape), kind, offset))
        at += 4 + 8 * axes + 12
    base = -(-at // 32) * 32
    found = {
        name: Blob(shape, kind, raw[base + offset : base + offset + size(shape, kind)])
        for name, shape, kind, offset in infos
    }
    return Document(values, found)


def render(document: Document) -> bytes:
    """Put a document together, laid out as llama.cpp wants it unless a tensor says otherwise."""
    out = [b"GGUF", struct.pack("<IQQ", 3, len(document.tensors), len(document.keys))]
    for key, value in document.keys.items():
        out += [
            _packed(STR, (key if value.name is None else value.name).encode()),
            struct.pack("<I", value.kind),
        ]
        if value.kind == ARRAY:
            out.append(struct.pack("<IQ", value.inner, len(value.value)))
            out += [_packed(value.inner, each) for each in value.value]
        else:
            out.append(_packed(value.kind, value.value))
    offset, data = 0, []
    for name, blob in document.tensors.items():
        out += [
            _packed(STR, (name if blob.name is None else blob.name).encode()),
            struct.pack("<I", len(blob.shape)),
        ]
        where = offset if blob.offset is None else blob.offset
        out.append(struct.pack(f"<{len(blob.shape)}QIQ", *blob.shape, blob.type, where % 2**64))
        data.append(blob.data + bytes(-len(blob.data) % 32))
        offset += len(data[-1])
    head = b"".join(out)
    return head + bytes(-len(head) % 32) + b"".join(data)


def size(shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor."""
    block, nbytes = BLOCKS[kind]
    return prod(shape) // block * nbytes


def _text(raw: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", raw, at)
    return raw[at + 8 : at + 8 + length], at + 8 + length


def _value(raw: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == STR:
        text, at = _text(raw, at)
        return Value(STR, text), at
    if kind != ARRAY:
        return Value(kind, struct.unpack_from(FORMS[kind], raw, at)[0]), at + struct.calcsize(FORMS[kind])
    inner, count = struct.unpack_from("<IQ", raw, at)
    at, items = at + 12, []
    for _ in range(count):
        each, at = _value(raw, at, inner)
        items.append(each.value)
    return Value(ARRAY, items, inner), at


def _packed(kind: int, value: Any) -> bytes:
    if kind != STR:
        return struct.pack(FORMS[kind], value)
    text = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(text)) + text
