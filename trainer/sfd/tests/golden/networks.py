"""The networks in plain PyTorch, from their published descriptions, as functions of a table of weights.

A weight is a function of its name and shape (see `Weights`), so that no file has to hold any.
"""

import math

import torch
import torch.nn.functional as F

SQRT_HALF = math.sqrt(0.5)


class Weights:
    """Makes each tensor when it is first asked for: uniform numbers from SplitMix64, seeded by the name."""

    def __init__(self, salt=0, dtype=torch.float64):
        self.salt, self.dtype, self.made = salt, dtype, {}

    def __call__(self, name, *shape):
        if name not in self.made:
            self.made[name] = torch.from_numpy(self.draw(name, shape)).to(self.dtype)
        assert tuple(self.made[name].shape) == shape, name
        return self.made[name]

    def draw(self, name, shape):
        import numpy

        key = 0xCBF29CE484222325
        for byte in name.encode():
            key = ((key ^ byte) * 0x100000001B3) % 2**64
        with numpy.errstate(over="ignore"):
            golden = numpy.uint64(0x9E3779B97F4A7C15)
            z = numpy.uint64(key) + numpy.uint64(self.salt) + numpy.arange(1, math.prod(shape) + 1, dtype="uint64") * golden
            z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
        unit = ((z ^ (z >> numpy.uint64(31))) >> numpy.uint64(40)).astype("float64") / 2**23 - 1
        if len(shape) > 1:
            unit *= math.sqrt(3 / math.prod(shape[1:]))
        elif name.endswith("weight"):
            unit = 1 + 0.2 * unit
        elif name.endswith("bias"):
            unit *= 0.1
        return unit.reshape(shape).astype("float32")


def linear(w, name, x, outputs, bias=True):
    return F.linear(x, w(f"{name}.weight", outputs, x.shape[1]), w(f"{name}.bias", outputs) if bias else None)


def conv(w, name, x, outputs, kernel=3, **how):
    weight, bias = w(f"{name}.weight", outputs, x.shape[1], kernel, kernel), w(f"{name}.bias", outputs)
    return F.conv2d(x, weight, bias, **({"padding": kernel // 2} | how))


def norm(w, name, x, groups, eps):
    channels = x.shape[1]
    return F.group_norm(x, groups, w(f"{name}.weight", channels), w(f"{name}.bias", channels), eps)


def attend(q, k, v):
    """[B, C, N] each: softmax over the keys of q.k / sqrt(C)."""
    return torch.einsum("bqk,bck->bcq", torch.einsum("bcq,bck->bqk", q, k).div(q.shape[1] ** 0.5).softmax(-1), v)


def mlp(w, model, x, told, label):
    net, pixels = model["network"], x.shape[1]
    width, blocks = net["width"], net["blocks"]
    step = math.log(64 / 0.5) / max(net["frequencies"] - 1, 1)
    phase = told * torch.tensor([0.5 * math.exp(step * i) for i in range(net["frequencies"])], dtype=x.dtype)
    noise = linear(w, "noise", torch.cat([phase.cos(), phase.sin()], 1), net["embedding"])
    condition = F.silu(noise + w("labels.weight", len(model["labels"]), net["embedding"])[label])
    parts = iter(linear(w, "modulation", condition, 2 * width * (blocks + 1)).chunk(2 * (blocks + 1), 1))
    modulated = lambda h: F.layer_norm(h, [width]) * (1 + next(parts)) + next(parts)
    h = linear(w, "input", x, width)
    for i in range(blocks):
        h = h + linear(w, f"blocks.{i}.outer", F.silu(linear(w, f"blocks.{i}.inner", modulated(h), width)), width)
    return linear(w, "output", modulated(h), pixels)


def ddpm_unet(w, model, x, t, label):
    net, channels = model["network"], model["network"]["channels"]
    embedding, classes = 4 * channels, len(model["labels"])
    half = channels // 2
    frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1))).to(x.dtype)
    waves = torch.cat([torch.sin(t * frequencies), torch.cos(t * frequencies)], 1)
    two = lambda name, h: linear(
        w, f"{name}.dense.1", F.silu(linear(w, f"{name}.dense.0", h, embedding)), embedding)
    table = torch.cat([w("classes_emb.weight", classes, channels), w("null_classes_emb", channels)[None]])
    condition = F.silu(torch.cat([two("temb", waves), two("cemb", table[label])], 1))
    group = lambda name, h: norm(w, name, h, 32, 1e-6)

    def block(name, h, outputs):
        inner = conv(w, f"{name}.conv1", F.silu(group(f"{name}.norm1", h)), outputs)
        inner = inner + linear(w, f"{name}.temb_cemb_proj", condition, outputs)[:, :, None, None]
        inner = conv(w, f"{name}.conv2", F.silu(group(f"{name}.norm2", inner)), outputs)
        return inner + (h if h.shape[1] == outputs else conv(w, f"{name}.nin_shortcut", h, outputs, 1))

    def attention(name, h):
        n = group(f"{name}.norm", h)
        q, k, v = (conv(w, f"{name}.{part}", n, h.shape[1], 1).flatten(2) for part in "qkv")
        return h + conv(w, f"{name}.proj_out", attend(q, k, v).reshape(h.shape), h.shape[1], 1)

    def level_block(way, level, i, h):
        h = block(f"{way}.{level}.block.{i}", h, channels * net["multipliers"][level])
        return attention(f"{way}.{level}.attn.{i}", h) if h.shape[2] in net["attention"] else h

    last = len(net["multipliers"]) - 1
    h = conv(w, "conv_in", x, channels)
    skips = [h]
    for level in range(last + 1):
        for i in range(net["blocks"]):
            h = level_block("down", level, i, h)
            skips.append(h)
        if level < last:
            h = conv(w, f"down.{level}.downsample.conv", F.pad(h, (0, 1, 0, 1)), h.shape[1], stride=2, padding=0)
            skips.append(h)
    h = block("mid.block_2", attention("mid.attn_1", block("mid.block_1", h, h.shape[1])), h.shape[1])
    for level in reversed(range(last + 1)):
        for i in range(net["blocks"] + 1):
            h = level_block("up", level, i, torch.cat([h, skips.pop()], 1))
        if level > 0:
            h = F.interpolate(h, scale_factor=2, mode="nearest")
            h = conv(w, f"up.{level}.upsample.conv", h, h.shape[1])
    return conv(w, "conv_out", F.silu(group("norm_out", h)), x.shape[1])


def edm_block(w, name, h, outputs, condition, attends, *, adm, head_channels=None, resample=None):
    eps, scale = (1e-5, 1) if adm else (1e-6, SQRT_HALF)
    group = lambda part, n: norm(w, f"{name}.{part}", n, min(32, n.shape[1] // 4), eps)
    resampled = {
        None: lambda n: n,
        "down": lambda n: F.avg_pool2d(n, 2),
        "up": lambda n: F.interpolate(n, scale_factor=2, mode="nearest"),
    }[resample]
    inner = conv(w, f"{name}.conv0", resampled(F.silu(group("norm0", h))), outputs)
    told = linear(w, f"{name}.affine", condition, outputs * (2 if adm else 1))[:, :, None, None]
    if adm:
        factor, shift = told.chunk(2, 1)
        inner = F.silu(group("norm1", inner) * (1 + factor) + shift)
    else:
        inner = F.silu(group("norm1", inner + told))
    inner = conv(w, f"{name}.conv1", inner, outputs)
    own_weights = h.shape[1] != outputs or (resample and not adm)
    h = resampled(h)
    h = (inner + (conv(w, f"{name}.skip", h, outputs, 1) if own_weights else h)) * scale
    if not attends:
        return h
    heads = outputs // head_channels if head_channels else 1
    qkv = conv(w, f"{name}.qkv", group("norm2", h), 3 * outputs, 1)
    q, k, v = qkv.reshape(len(h) * heads, outputs // heads, 3, -1).unbind(2)
    return (conv(w, f"{name}.proj", attend(q, k, v).reshape(h.shape), outputs, 1) + h) * scale


def edm_unet(w, model, x, told, label):
    net, channels, classes = model["network"], model["network"]["channels"], len(model["labels"])
    adm, side, last = net["kind"] == "admUnet", x.shape[2], len(net["multipliers"]) - 1
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32) / (half - (0 if adm else 1))
    frequencies = torch.pow(1 / 10000, index).to(x.dtype)
    waves = [torch.cos(told * frequencies), torch.sin(told * frequencies)]
    one_hot = F.one_hot(label, classes + 1)[:, :classes].to(x.dtype)
    w("model.map_augment.weight", channels, net["augmentations"]) if net["augmentations"] else None
    if adm:
        h = F.silu(linear(w, "model.map_layer0", torch.cat(waves, 1), 4 * channels))
        h = linear(w, "model.map_layer1", h, 4 * channels)
        condition = F.silu(h + linear(w, "model.map_label", one_hot, 4 * channels, bias=False))
    else:
        h = torch.cat(waves[::-1], 1) + linear(w, "model.map_label", one_hot * classes**0.5, channels)
        h = F.silu(linear(w, "model.map_layer0", h, 4 * channels))
        condition = F.silu(linear(w, "model.map_layer1", h, 4 * channels))
    extra = {"adm": adm, "head_channels": net.get("headChannels")}
    block = lambda name, h, outputs, attends, **how: edm_block(
        w, f"model.{name}", h, outputs, condition, attends, **extra, **how)

    h = conv(w, f"model.enc.{side}x{side}_conv", x, channels * (net["multipliers"][0] if adm else 1))
    skips = [h]
    for level, multiplier in enumerate(net["multipliers"]):
        here, attends = side >> level, (side >> level) in net["attention"]
        if level:
            h = block(f"enc.{here}x{here}_down", h, h.shape[1], False, resample="down")
            skips.append(h)
        for i in range(net["blocks"]):
            h = block(f"enc.{here}x{here}_block{i}", h, channels * multiplier, attends)
            skips.append(h)
    for level in reversed(range(last + 1)):
        here, attends = side >> level, (side >> level) in net["attention"]
        if level == last:
            h = block(f"dec.{here}x{here}_in0", h, h.shape[1], True)
            h = block(f"dec.{here}x{here}_in1", h, h.shape[1], False)
        else:
            h = block(f"dec.{here}x{here}_up", h, h.shape[1], False, resample="up")
        for i in range(net["blocks"] + 1):
            h = torch.cat([h, skips.pop()], 1)
            here_attends = attends and (adm or i == net["blocks"])
            h = block(f"dec.{here}x{here}_block{i}", h, channels * net["multipliers"][level], here_attends)
    names = ("model.out_norm", "model.out_conv") if adm else (
        f"model.dec.{side}x{side}_aux_norm", f"model.dec.{side}x{side}_aux_conv")
    h = norm(w, names[0], h, min(32, h.shape[1] // 4), 1e-5 if adm else 1e-6)
    return conv(w, names[1], F.silu(h), x.shape[1])


NETWORKS = {"mlp": mlp, "ddpmUnet": ddpm_unet, "songUnet": edm_unet, "admUnet": edm_unet}
