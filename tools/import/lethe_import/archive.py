"""Files that torch.save or pickle wrote: their description, and the numbers of their tensors."""

import io
import math
import struct
import zipfile
from array import array

from . import Refused, inert

SIZES = {"f64": 8, "f32": 4, "f16": 2, "bf16": 2, "i64": 8, "i32": 4, "i16": 2, "i8": 1, "u8": 1, "bool": 1}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# Zip archives, and the first pickle of the format before that.
ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"


class Tensor:
    """A tensor whose numbers are read when they are asked for."""

    def __init__(self, storage, kind, offset, shape, strides):
        self.storage, self.kind, self.offset = storage, kind, offset
        self.shape, self.strides = shape, strides

    def floats(self):
        """The numbers in row-major order, in single precision."""
        if self.kind not in ("f64", "f32", "f16", "bf16"):
            raise Refused(f"it holds {self.kind} where floating-point numbers belong")
        data, count = self.storage(), math.prod(self.shape)
        contiguous, step = [], 1
        for size in reversed(self.shape):
            contiguous.insert(0, step)
            step *= size
        # Neither offset nor strides are negative.
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))
        held = len(data) // SIZES[self.kind]
        if count and not (last < held and count <= held):
            raise Refused("it reaches beyond the numbers that the file holds for it")
        if all(size == 1 or a == b for size, a, b in zip(self.shape, self.strides, contiguous)):
            return _floats(data, self.kind, self.offset, count)
        every = _floats(data, self.kind, 0, len(data) // SIZES[self.kind])
        indices = [self.offset]
        for size, stride in zip(self.shape, self.strides):
            indices = [index + i * stride for index in indices for i in range(size)]
        return array("f", (every[index] for index in indices))


def _floats(data, kind, first, count):
    size = SIZES[kind]
    part = memoryview(data)[first * size:(first + count) * size]
    if kind == "f32":
        numbers = array("f")
        numbers.frombytes(part)
    elif kind == "bf16":
        numbers = array("f")
        numbers.frombytes(b"".join(b"\0\0" + bytes(part[at:at + 2]) for at in range(0, len(part), 2)))
    else:
        code = "<" + str(count) + {"f64": "d", "f16": "e"}[kind]
        numbers = array("f", struct.unpack(code, part))
    return numbers


class Archive:
    """A checkpoint: `root` describes it, `tensor` finds what a part of the description stands for."""

    def __init__(self, root, storages):
        self.root, self._storages = root, storages

    def tensor(self, node):
        """The tensor that a part of the description stands for, or None."""
        while isinstance(node, inert.Call) and node.name == inert.PARAMETER:
            if not node.args:
                raise Refused("a parameter of the checkpoint is made of nothing")
            node = node.args[0]
        if not isinstance(node, inert.Call) or node.name != inert.TENSOR:
            return None
        try:
            storage, offset, shape, strides = node.args[:4]
            numbers = [offset, *shape, *strides]
        except (TypeError, ValueError) as error:
            raise Refused("a tensor of the checkpoint is described in a way that is not understood") from error
        if len(shape) != len(strides) or not all(type(number) is int and 0 <= number < 2**40 for number in numbers):
            raise Refused("a tensor of the checkpoint has an impossible shape")
        kind, read = self._storage(storage)
        return Tensor(read, kind, offset, list(shape), list(strides))

    def _storage(self, node):
        if isinstance(node, inert.Call) and node.name == inert.STORAGE_BYTES and node.args \
                and isinstance(node.args[0], bytes):
            # A file in the file: the storage alone, as torch.save writes it.
            inner = load(io.BytesIO(node.args[0]))
            if not isinstance(inner.root, inert.Reference):
                raise Refused("the numbers of a tensor are something else")
            return inner._storage(inner.root)
        key = node.key if isinstance(node, inert.Reference) else None
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage" or not isinstance(key[1], inert.Name):
            raise Refused("a tensor of the checkpoint has no numbers")
        kind = inert.STORAGES.get(key[1].name)
        if kind is None or not isinstance(key[2], str):
            raise Refused("a tensor of the checkpoint has numbers of no known type")
        return kind, lambda: self._storages(key[2])


def load(file):
    """Opens a checkpoint; `file` is seekable and binary."""
    start = file.read(4)
    file.seek(0)
    if start == ZIP_START:
        return _load_zip(file)
    if start[:1] != PICKLE_START:
        raise Refused("neither a torch checkpoint nor a pickle; a .safetensors file needs no import")
    first = inert.read(file)
    if first != LEGACY_MAGIC:
        return Archive(first, _none)
    return _load_legacy(file)


def _none(key):
    raise Refused(f"the numbers {key!r} of a tensor are not in the file")


def _load_zip(file):
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise Refused(f"a damaged torch checkpoint ({error}); get the file again") from error
    names = archive.namelist()
    descriptions = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(descriptions) != 1:
        raise Refused("a zip archive, but no checkpoint that torch.save wrote")
    folder = descriptions[0].split("/")[0]

    def read(name):
        try:
            entry = archive.getinfo(name)
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Refused(f"{name} is compressed, which torch.save never does")
            return archive.read(name)
        except KeyError:
            return _none(name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError) as error:
            raise Refused(f"a damaged torch checkpoint, in {name} ({error}); get the file again") from error

    if f"{folder}/byteorder" in names and read(f"{folder}/byteorder") != b"little":
        raise Refused("its numbers are big-endian; save it again on a usual machine")
    return Archive(inert.read(io.BytesIO(read(descriptions[0]))), lambda key: read(f"{folder}/data/{key}"))


def _load_legacy(file):
    """The format of torch before 1.6: pickles in a row, then the storages in the order of a list of keys."""
    inert.read(file)
    system = inert.read(file)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise Refused("its numbers are big-endian; save it again on a usual machine")
    root = inert.read(file)
    keys = inert.read(file)
    widths = {}
    _storage_widths(root, widths)
    storages = {}
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    for key in keys if isinstance(keys, list) else []:
        # A key may be anything, also what no dictionary can look up.
        count, width = file.read(8), widths.get(key) if isinstance(key, str) else None
        if width is None or len(count) != 8:
            raise Refused("a damaged torch checkpoint: its numbers do not fit their description; get the file again")
        size = int.from_bytes(count, "little") * width
        # Before anything is read: the count is whatever the file says.
        if size > end - file.tell():
            raise Refused("a truncated torch checkpoint; get the file again")
        storages[key] = file.read(size)
    return Archive(root, lambda key: storages[key] if key in storages else _none(key))


def _storage_widths(root, widths):
    """Bytes per number of every storage that the description refers to."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, inert.Reference) and isinstance(node.key, tuple) and len(node.key) > 2:
            kind = inert.STORAGES.get(getattr(node.key[1], "name", None))
            if kind and isinstance(node.key[2], str):
                widths[node.key[2]] = SIZES[kind]
        elif isinstance(node, inert.Call):
            waiting += [*node.args, node.state]
        elif isinstance(node, dict):
            waiting += [*node.keys(), *node.values()]
        elif isinstance(node, (list, tuple, set, frozenset)):
            waiting += node
