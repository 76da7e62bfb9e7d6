"""A denoiser around one of the plain networks that the trainer's tests are checked against."""

import networks
import safetensors
import torch


class Denoiser:
    """D(x; sigma, label): EDM's preconditioning (arXiv 2206.00364, table 1) around a network."""

    def __init__(self, config, weights):
        self.config = config
        self.network = networks.NETWORKS[config["network"].get("kind", "mlp")]
        self.weights = weights

    @classmethod
    def read(cls, config, path):
        return cls(config, {name: weight.requires_grad_() for name, weight in safetensors.read(path).items()})

    def duplicate(self):
        return Denoiser(self.config, {name: weight.detach().clone() for name, weight in self.weights.items()})

    def parameters(self):
        # Filters of the resampling are in the file, but are no weights.
        return [weight for name, weight in self.weights.items() if not name.endswith("resample_filter")]

    def requires_grad_(self, requires_grad):
        for weight in self.parameters():
            weight.requires_grad_(requires_grad)

    def __call__(self, x, sigma, label):
        data = self.config["noise"]["sigmaData"]
        variance = sigma**2 + data**2
        c_skip, c_out = data**2 / variance, sigma * data / variance.sqrt()
        c_in, c_noise = 1 / variance.sqrt(), sigma.log() / 4
        return c_skip * x + c_out * self.raw(c_in * x, c_noise, label)

    def raw(self, x, c_noise, label):
        image = self.config["image"]
        if self.network is not networks.mlp:
            x = x.view(-1, image["channels"], image["height"], image["width"])
        return self.network(lambda name, *shape: self.weights[name], self.config, x, c_noise, label).flatten(1)
