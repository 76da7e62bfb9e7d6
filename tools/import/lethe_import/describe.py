"""`model.json` from the names and shapes of a network's tensors."""

import re

from . import Refused

# SFD's schedule and its window of noise levels (arXiv 2409.11219); the ends of DDPM's thousand timesteps.
DISCRETE = {"kind": "epsilon", "betas": "linear", "betaStart": 0.0001, "betaEnd": 0.02, "steps": 1000,
            "trainingMin": 0.137, "trainingMax": 13.1}
DISCRETE_LEVELS = {"sigmaData": 0.5, "sigmaInit": 2.5, "sigmaMin": 0.01, "sigmaMax": 157.0}
FIRST_OF_EDM = re.compile(r"model\.enc\.(\d{1,5})x\1_conv\.weight")
EDM_LEVELS = {"sigmaInit": 2.5, "sigmaMin": 0.002, "sigmaMax": 80.0}


def describe(tensors, sigma_data, labels, image_size):
    """The model that these tensors belong to. `labels` and `image_size` may be None where the tensors tell."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    try:
        return _describe(shapes, sigma_data, labels, image_size)
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise Refused(f"tensors with the names, but not with the shapes, of a known network ({error})") from error


def _describe(shapes, sigma_data, labels, image_size):
    if "conv_in.weight" in shapes and "temb.dense.0.weight" in shapes:
        return _ddpm(shapes, labels, image_size)
    first = next(filter(None, map(FIRST_OF_EDM.fullmatch, shapes)), None)
    if first and "model.map_noise.freqs" in shapes:
        raise Refused("an NCSN++ network, which Lethe does not have; EDM's DDPM++ and ADM networks can be imported")
    if first:
        return _edm(shapes, int(first.group(1)), sigma_data, labels, image_size)
    known = "the DDPM U-Net of the code published with SFD, and EDM's SongUNet and DhariwalUNet"
    raise Refused(f"tensors of an unknown network, such as {min(shapes)!r}; known are {known}")


def _ddpm(shapes, labels, image_size):
    if image_size is None:
        raise Refused("this network does not say how large its images are; say it with --image-size, e.g. 32 for CIFAR-10")
    channels, image_channels = shapes["conv_in.weight"][:2]
    levels = _count(shapes, "down.{}.block.0.conv1.weight")
    widths = [shapes[f"down.{level}.block.0.conv1.weight"][0] for level in range(levels)]
    attention = [image_size >> level for level in range(levels) if f"down.{level}.attn.0.q.weight" in shapes]
    network = {
        "kind": "ddpmUnet",
        "channels": channels,
        "multipliers": _multipliers(widths, channels),
        "blocks": _count(shapes, "down.0.block.{}.conv1.weight"),
        "attention": attention,
    }
    classes = _shape(shapes, "classes_emb.weight")[0]
    return _model(image_channels, image_size, _labels(labels, classes), DISCRETE_LEVELS, DISCRETE, network)


def _edm(shapes, side, sigma_data, labels, image_size):
    if image_size not in (None, side):
        raise Refused(f"this network's images are {side} pixels wide, not {image_size}")
    if "model.map_label.weight" not in shapes:
        raise Refused("this network has no labels; Lethe forgets labels, so only class-conditional models are of use")
    levels = 0
    name = lambda level, rest: f"model.enc.{side >> level}x{side >> level}_{rest}"
    while side >> levels and name(levels, "block0.conv0.weight") in shapes:
        levels += 1
    widths = [_shape(shapes, name(level, "block0.conv0.weight"))[0] for level in range(levels)]
    classes = shapes["model.map_label.weight"][1]
    song = f"model.dec.{side}x{side}_aux_conv.weight" in shapes
    channels = _shape(shapes, "model.map_layer0.weight")[1]
    network = {
        "kind": "songUnet" if song else "admUnet",
        "channels": channels,
        "multipliers": _multipliers(widths, channels),
        "blocks": _count(shapes, name(0, "block{}.conv0.weight")),
        "attention": [side >> level for level in range(levels) if name(level, "block0.qkv.weight") in shapes],
        "augmentations": shapes.get("model.map_augment.weight", [0, 0])[1],
    }
    image_channels = _shape(shapes, name(0, "conv.weight"))[1]
    noise = {"sigmaData": sigma_data if sigma_data is not None else 0.5, **EDM_LEVELS}
    return _model(image_channels, side, _labels(labels, classes), noise, {"kind": "edm"}, network)


def _model(channels, side, labels, noise, parametrisation, network):
    return {
        "image": {"channels": channels, "height": side, "width": side},
        "labels": labels,
        "noise": noise,
        "parametrisation": parametrisation,
        "network": network,
    }


def _labels(labels, classes):
    if labels is None:
        return [str(label) for label in range(classes)]
    if len(labels) != classes or len(set(labels)) != classes or not all(labels):
        raise Refused(f"the network has {classes} labels; name as many different ones with --labels")
    return labels


def _count(shapes, pattern):
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count


def _multipliers(widths, channels):
    if not widths or not channels or any(width % channels for width in widths):
        raise Refused(f"the widths {widths} of the network are no multiples of its {channels} channels")
    return [width // channels for width in widths]


def _shape(shapes, name):
    if name not in shapes:
        raise Refused(f"the tensor {name!r} is missing")
    return shapes[name]
