"""Reads safetensors files: a length, a JSON header, and the values one after the other."""

import json
import struct

import torch

KINDS = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64}


def read(path):
    """All tensors of a file, by name."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    values = memoryview(content)[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            flat = torch.frombuffer(values[start:end], dtype=KINDS[entry["dtype"]])
            tensors[name] = flat.clone().view(entry["shape"])
    return tensors
