"""The networks of Lethe's models, written as anybody would write them in PyTorch. Parameters have the same names."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)


class Mlp(nn.Module):
    """A residual perceptron; noise level and label scale and shift every block."""

    def __init__(self, pixels, classes, width, blocks, embedding, frequencies):
        super().__init__()
        low, high = 0.5, 64.0
        step = math.log(high / low) / max(frequencies - 1, 1)
        steps = torch.arange(frequencies, dtype=torch.float64)
        self.register_buffer("frequencies", (low * torch.exp(step * steps)).float(), persistent=False)
        self.input = nn.Linear(pixels, width)
        self.noise = nn.Linear(2 * frequencies, embedding)
        self.labels = nn.Embedding(classes, embedding)
        self.modulation = nn.Linear(embedding, 2 * width * (blocks + 1))
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.output = nn.Linear(width, pixels)

    def forward(self, x, c_noise, label):
        phase = c_noise * self.frequencies
        condition = self.noise(torch.cat([phase.cos(), phase.sin()], 1)) + self.labels(label)
        modulations = self.modulation(F.silu(condition)).chunk(len(self.blocks) + 1, 1)

        def modulated(h, modulation):
            scale, shift = modulation.chunk(2, 1)
            return F.layer_norm(h, h.shape[1:]) * (scale + 1) + shift

        h = self.input(x)
        for block, modulation in zip(self.blocks, modulations):
            h = h + block.outer(F.silu(block.inner(modulated(h, modulation))))
        return self.output(modulated(h, modulations[-1]))


class Edm(nn.Module):
    """D(x; sigma, label): EDM's preconditioning (arXiv 2206.00364, table 1) around a network."""

    def __init__(self, network, sigma_data):
        super().__init__()
        self.network = network
        self.sigma_data = sigma_data

    def forward(self, x, sigma, label):
        data = self.sigma_data
        variance = sigma**2 + data**2
        c_skip, c_out = data**2 / variance, sigma * data / variance.sqrt()
        c_in, c_noise = 1 / variance.sqrt(), sigma.log() / 4
        return c_skip * x + c_out * self.network(c_in * x, c_noise, label)


def build(config):
    """An untrained model of the form that a model.json describes."""
    image, network = config["image"], config["network"]
    pixels = image["channels"] * image["height"] * image["width"]
    classes = len(config["labels"])
    sizes = [network[name] for name in ("width", "blocks", "embedding", "frequencies")]
    return Edm(Mlp(pixels, classes, *sizes), config["noise"]["sigmaData"])
