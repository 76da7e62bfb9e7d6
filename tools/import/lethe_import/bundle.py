"""Writes a bundle: weights as safetensors, `model.json`, and the manifest by whose digest the bundle is known."""

import hashlib
import json
import math
import os
import sys
import tempfile

from . import Refused

MODEL_SCHEMA, MANIFEST_SCHEMA = "lethe.dev/model/v1", "lethe.dev/manifest/v1"
DESCRIPTION, WEIGHTS, MANIFEST = "model.json", "model.safetensors", "manifest.json"


def write(folder, kind, model, tensors):
    """Writes the bundle into a new folder and returns its digest. The manifest comes last: without it there is no bundle."""
    if os.path.exists(folder):
        raise Refused(f"{folder} exists already; name a folder that does not")
    parent = os.path.dirname(os.path.abspath(folder))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".import-") as working:
        description = {"schema": MODEL_SCHEMA, "model": model, "forgotten": []}
        _file(working, DESCRIPTION, [json.dumps(description).encode()])
        _file(working, WEIGHTS, safetensors(tensors))
        manifest = _manifest(working, kind)
        _file(working, MANIFEST, [manifest])
        os.mkdir(folder)
        for name in [DESCRIPTION, WEIGHTS, MANIFEST]:
            os.replace(os.path.join(working, name), os.path.join(folder, name))
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def seal(folder, kind):
    """Writes the manifest of a folder that has the other two files, in place of an older one, and returns the bundle's digest.

    What is in them is for the trainer to check, which reads them strictly.
    """
    for name in [DESCRIPTION, WEIGHTS]:
        if not os.path.isfile(os.path.join(folder, name)):
            raise Refused(f"there is no {name} in it; docs/base-models.md says what a bundle holds")
    with open(os.path.join(folder, DESCRIPTION), "rb") as file:
        try:
            schema = json.load(file).get("schema")
        except (ValueError, AttributeError):
            schema = None
    if schema != MODEL_SCHEMA:
        raise Refused(f"{DESCRIPTION} is no JSON object with the schema {MODEL_SCHEMA!r}")
    manifest = _manifest(folder, kind)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".seal-") as working:
        _file(working, MANIFEST, [manifest])
        os.replace(os.path.join(working, MANIFEST), os.path.join(folder, MANIFEST))
    return "sha256:" + hashlib.sha256(manifest).hexdigest()


def _manifest(folder, kind):
    files = {name: _entry(os.path.join(folder, name)) for name in [DESCRIPTION, WEIGHTS]}
    return json.dumps({"schema": MANIFEST_SCHEMA, "kind": kind, "files": files}).encode()


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
