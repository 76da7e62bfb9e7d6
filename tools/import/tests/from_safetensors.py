"""Makes checkpoints, as people have them, from a safetensors file: python3 -m tests.from_safetensors FILE pth|legacy|edm OUT"""

import json
import sys
from array import array

from . import forge


def read(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start, tensors = file.tell(), {}
        for name, entry in header.items():
            first, end = entry["data_offsets"]
            file.seek(start + first)
            tensors[name] = forge.Tensor(array("f", file.read(end - first)), entry["shape"], parameter=True)
        return tensors


def tree(tensors):
    """Dotted names as modules in modules, below `model`."""
    root = {}
    for name, tensor in tensors.items():
        first, *modules, last = name.split(".")
        assert first == "model", name
        place = root
        for module in modules:
            place = place.setdefault(module, {})
        place[last] = tensor
    return root


def main(source, form, target):
    tensors = read(source)
    with forge.torch() as known:
        if form == "edm":
            made = forge.edm(tree(tensors), known)
        else:
            parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
            made = getattr(forge, {"pth": "archive", "legacy": "legacy"}[form])([parallel, {}, 7, tensors], known)
    with open(target, "wb") as file:
        file.write(made)


if __name__ == "__main__":
    main(*sys.argv[1:])
