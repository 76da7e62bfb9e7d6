"""Checkpoints as torch writes them, without torch: modules of the right names stand in while a pickle is made."""

import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from unittest import mock

NAMES = {
    "torch": ["FloatStorage", "HalfStorage", "DoubleStorage", "BFloat16Storage", "LongStorage"],
    "torch._utils": ["_rebuild_tensor_v2", "_rebuild_parameter"],
    "torch.storage": ["_load_from_bytes"],
    "torch.nn.modules.container": ["ModuleDict"],
    "torch_utils.persistence": ["_reconstruct_persistent_obj"],
}
WIDTHS = {"FloatStorage": ("f", 4), "HalfStorage": ("e", 2), "DoubleStorage": ("d", 8), "LongStorage": ("q", 8)}


@contextlib.contextmanager
def torch():
    """Gives the stand-ins by name."""
    modules, known = {}, {}
    for module, names in NAMES.items():
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            parent = ".".join(parts[:length])
            modules.setdefault(parent, types.ModuleType(parent))
        for name in names:
            stand_in = type(name, (), {"__module__": module, "__qualname__": name})
            setattr(modules[module], name, stand_in)
            known[name] = stand_in
    with mock.patch.dict(sys.modules, modules):
        yield known


class Storage:
    def __init__(self, values, kind="FloatStorage"):
        self.values, self.kind = list(values), kind

    def bytes(self):
        if self.kind == "BFloat16Storage":
            return b"".join(struct.pack("<f", value)[2:] for value in self.values)
        return struct.pack(f"<{len(self.values)}{WIDTHS[self.kind][0]}", *self.values)


class Tensor:
    def __init__(self, values, shape, strides=None, offset=0, kind="FloatStorage", parameter=False):
        self.storage, self.shape, self.offset = Storage(values, kind), tuple(shape), offset
        self.strides, self.parameter = tuple(strides) if strides else contiguous(shape), parameter


def contiguous(shape):
    strides, step = [], 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return tuple(strides)


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function, *args, state=None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self):
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


class Pickler(pickle.Pickler):
    """Pickles tensors as torch does; `inline` puts each storage into the pickle itself, as plain pickle does."""

    def __init__(self, file, known, inline=False, protocol=2):
        super().__init__(file, protocol)
        self.known, self.inline, self.storages = known, inline, []

    def persistent_id(self, value):
        if not isinstance(value, Storage) or self.inline:
            return None
        if value not in self.storages:
            self.storages.append(value)
        key = str(self.storages.index(value))
        return ("storage", self.known[value.kind], key, "cpu", len(value.values))

    def reducer_override(self, value):
        if isinstance(value, Tensor):
            made = (value.storage, value.offset, value.shape, value.strides, False, OrderedDict())
            if not value.parameter:
                return self.known["_rebuild_tensor_v2"], made
            return self.known["_rebuild_parameter"], (Call(self.known["_rebuild_tensor_v2"], *made), True, OrderedDict())
        if isinstance(value, Storage):
            return self.known["_load_from_bytes"], (legacy(value, self.known),)
        return NotImplemented


def archive(root, known):
    """The format of torch since 1.6."""
    description = io.BytesIO()
    pickler = Pickler(description, known)
    pickler.dump(root)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("archive/data.pkl", description.getvalue())
        out.writestr("archive/byteorder", "little")
        for key, storage in enumerate(pickler.storages):
            out.writestr(f"archive/data/{key}", storage.bytes())
        out.writestr("archive/version", "3\n")
    return file.getvalue()


def legacy(root, known):
    """The format of torch before 1.6."""
    file = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(part, file, 2)
    description = io.BytesIO()
    pickler = Pickler(description, known)
    pickler.dump(root)
    file.write(description.getvalue())
    pickle.dump([str(key) for key in range(len(pickler.storages))], file, 2)
    for storage in pickler.storages:
        file.write(struct.pack("<q", len(storage.values)) + storage.bytes())
    return file.getvalue()


def edm(network, known, form="EDMPrecond", sigma_data=0.5):
    """A pickle as EDM writes it. `network` holds tensors and further such dictionaries, by name."""
    def module(parts, name, **attributes):
        tensors = OrderedDict((key, part) for key, part in parts.items() if isinstance(part, Tensor))
        modules = OrderedDict(
            (key, module(part, "Part")) for key, part in parts.items() if isinstance(part, dict))
        state = {"training": False, "_parameters": tensors, "_buffers": OrderedDict(), "_modules": modules, **attributes}
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": name, "state": state}
        return Call(known["_reconstruct_persistent_obj"], meta)

    file = io.BytesIO()
    root = {"ema": module({"model": network}, form, sigma_data=sigma_data), "dataset_kwargs": {"path": "x.zip"}}
    Pickler(file, known, inline=True, protocol=4).dump(root)
    return file.getvalue()
