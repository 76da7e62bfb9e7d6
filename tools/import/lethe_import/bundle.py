"""Writes a bundle: weights as safetensors, `model.json`, and the manifest by whose digest the bundle is known."""

import hashlib
import json
import math
import os
import sys
import tempfile

from . import Refused

MODEL_SCHEMA, MANIFEST_SCHEMA = "lethe.dev/model/v1", "lethe.dev/manifest/v1"


def write(folder, kind, model, tensors):
    """Writes the bundle into a new folder and returns its digest. The manifest comes last: without it there is no bundle."""
    if os.path.exists(folder):
        raise Refused(f"{folder} exists already; name a folder that does not")
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".import-") as working:
        description = {"schema": MODEL_SCHEMA, "model": model, "forgotten": []}
        _file(working, "model.json", [json.dumps(description).encode()])
        _file(working, "model.safetensors", safetensors(tensors))
        names = ["model.json", "model.safetensors"]
        files = {name: _entry(os.path.join(working, name)) for name in names}
        manifest = json.dumps({"schema": MANIFEST_SCHEMA, "kind": kind, "files": files}).encode()
        _file(working, "manifest.json", [manifest])
        os.mkdir(folder)
        for name in [*names, "manifest.json"]:
            os.replace(os.path.join(working, name), os.path.join(folder, name))
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def safetensors(tensors):
    """The parts of a safetensors file in single precision, one tensor at a time, in the order of their names."""
    header, offset = {}, 0
    for name in sorted(tensors):
        size = 4 * math.prod(tensors[name].shape)
        header[name] = {"dtype": "F32", "shape": tensors[name].shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in sorted(tensors):
        try:
            numbers = tensors[name].floats()
        except Refused as refused:
            raise Refused(f"tensor {name}: {refused}") from refused
        if not all(map(math.isfinite, numbers)):
            raise Refused(f"tensor {name} holds a value that is not finite")
        if sys.byteorder == "big":
            numbers.byteswap()
        yield numbers.tobytes()


def _file(folder, name, parts):
    with open(os.path.join(folder, name), "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _entry(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return {"digest": "sha256:" + digest.hexdigest(), "bytes": os.path.getsize(path)}
