"""Which network of a checkpoint is meant, and what its tensors are."""

from . import Refused, inert

# The published code saves lists; what lies where depends on how many there are.
TEACHER = {"model": 0, "ema": 3}
DISTILLED = {"fake-score": 0, "generator": 2, "ema": 5}
# Modules in modules; EDM's networks have four levels.
DEEPEST = 16
CHOICES = ["ema", "model", "generator", "fake-score"]


def find(archive, wanted):
    """The tensors of the wanted network by name, and what the checkpoint says about its preconditioning."""
    root = archive.root
    if isinstance(root, list):
        return _from_list(archive, root, wanted), None
    if isinstance(root, dict) and _is_persistent(root.get("ema")):
        if wanted != "ema":
            raise Refused(f"an EDM checkpoint holds the network 'ema', not {wanted!r}")
        return _from_edm(archive, root["ema"])
    if isinstance(root, dict):
        return _from_dict(archive, root), None
    raise Refused("neither a list, nor a dictionary of tensors, nor an EDM checkpoint: nothing to import")


def _from_list(archive, parts, wanted):
    places = {4: TEACHER, 3: TEACHER, 6: DISTILLED, 5: DISTILLED}.get(len(parts))
    if places is None:
        raise Refused(f"a list of {len(parts)} things; the published code saves 4 (a teacher) or 6 (SFD)")
    place = places.get(wanted)
    if place is None or place >= len(parts) or not isinstance(parts[place], dict):
        known = [name for name, at in places.items() if at < len(parts) and isinstance(parts[at], dict)]
        raise Refused(f"this checkpoint has no network {wanted!r}; choose with --network: {', '.join(known) or 'none'}")
    return _from_dict(archive, parts[place])


def _from_dict(archive, state):
    tensors = {}
    for name, node in state.items():
        tensor = archive.tensor(node)
        if not isinstance(name, str) or tensor is None:
            raise Refused(f"{str(name)[:80]!r} is no tensor, and a network is a dictionary of tensors")
        # Left behind by training on several devices.
        name = name[len("module."):] if name.startswith("module.") else name
        if name in tensors:
            raise Refused(f"the tensor {name!r} is there twice")
        tensors[name] = tensor
    if not tensors:
        raise Refused("the network has no tensors")
    return tensors


def _is_persistent(node):
    return isinstance(node, inert.Call) and node.name == inert.PERSISTENT and len(node.args) == 1 \
        and isinstance(node.args[0], dict)


def _from_edm(archive, node):
    attributes = _attributes(node)
    form, sigma_data = node.args[0].get("class_name"), attributes.get("sigma_data", 0.5)
    if form != "EDMPrecond":
        raise Refused(f"its preconditioning is {str(form)[:40]!r}; only EDM's own, EDMPrecond, can be imported")
    if not isinstance(sigma_data, (int, float)) or not 0 < sigma_data < 1000:
        raise Refused("its sigma_data is no deviation of pixels")
    tensors = {}
    _collect(archive, node, "", tensors, set())
    return tensors, sigma_data


def _attributes(node):
    """The attributes of a module, as the pickle describes them."""
    state = getattr(node, "state", None)
    if _is_persistent(node):
        state = node.args[0].get("state")
    if not isinstance(state, dict):
        raise Refused("a module of the checkpoint is described in a way that is not understood")
    return state


def _collect(archive, node, prefix, tensors, seen):
    """Names as PyTorch gives them: a module's own tensors, then those of the modules in it."""
    if id(node) in seen or prefix.count(".") > DEEPEST:
        raise Refused(f"the module {prefix[:80]!r} lies in itself, in two places, or too deep")
    seen.add(id(node))
    attributes = _attributes(node)
    own = {**_dict(attributes, "_parameters"), **_dict(attributes, "_buffers")}
    for name, value in own.items():
        if value is None:
            continue
        tensor = archive.tensor(value)
        if tensor is None:
            raise Refused(f"{prefix}{name} is no tensor")
        tensors[f"{prefix}{name}"] = tensor
    for name, module in _dict(attributes, "_modules").items():
        if module is not None:
            _collect(archive, module, f"{prefix}{name}.", tensors, seen)


def _dict(attributes, name):
    value = attributes.get(name)
    if not isinstance(value, dict):
        raise Refused(f"a module of the checkpoint has no {name}")
    return value
