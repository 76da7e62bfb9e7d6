"""Writes the golden files beside it: what PyTorch says the trainer must compute.

    pip install torch numpy safetensors
    python3 generate.py

The tests in `trainer/sfd/src/golden.rs` read them. Everything is computed in double precision and stored in single.
"""

import json
from pathlib import Path

import numpy
import torch
from networks import NETWORKS, Weights
from safetensors.torch import save_file

HERE = Path(__file__).parent
LINEAR = {"betas": "linear", "betaStart": 1e-4, "betaEnd": 0.02, "steps": 1000, "trainingMin": 0.137, "trainingMax": 13.1}
SCALED = LINEAR | {"betas": "scaledLinear", "betaStart": 0.00085, "betaEnd": 0.012, "trainingMax": 13.0}
EDM = {"kind": "edm"}
EPSILON = {"kind": "epsilon"} | LINEAR
V = {"kind": "v"} | SCALED
MLP = {"kind": "mlp", "width": 24, "blocks": 2, "embedding": 12, "frequencies": 5}
DDPM = {"kind": "ddpmUnet", "channels": 32, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
SONG = {"kind": "songUnet", "channels": 16, "multipliers": [1, 2], "blocks": 2, "attention": [4], "augmentations": 9}
ADM = {"kind": "admUnet", "channels": 64, "multipliers": [1, 2], "blocks": 1, "attention": [8], "augmentations": 0,
       "headChannels": 64}
ALPHA = 1.2


def model(network, parametrisation, side=8, channels=3):
    lowest, highest = (0.002, 80.0) if parametrisation == EDM else (0.05, 13.5)
    noise = {"sigmaData": 0.5, "sigmaInit": 2.5, "sigmaMin": lowest, "sigmaMax": highest}
    return {
        "image": {"channels": channels, "height": side, "width": side},
        "labels": ["a", "b", "c", "d"],
        "noise": noise,
        "parametrisation": parametrisation,
        "network": network,
    }


def alpha_bar(discrete):
    n, start, end = discrete["steps"], discrete["betaStart"], discrete["betaEnd"]
    scaled = discrete["betas"] == "scaledLinear"
    betas = numpy.linspace(start**0.5, end**0.5, n) ** 2 if scaled else numpy.linspace(start, end, n)
    return torch.from_numpy(numpy.cumprod(1 - betas))


class Model:
    """A network with its weights, and the two ways to ask it for a clean image."""

    def __init__(self, description, salt=0, weights=None):
        self.description, self.weights = description, weights or Weights(salt)
        self.form = description["parametrisation"]
        self.abar = None if self.form == EDM else alpha_bar(self.form)

    def raw(self, x, told, label):
        image, network = self.description["image"], self.description["network"]["kind"]
        if network != "mlp":
            x = x.reshape(-1, image["channels"], image["height"], image["width"])
        return NETWORKS[network](self.weights, self.description, x, told, label).reshape(len(x), -1)

    def edm(self, x, sigma, label):
        data = self.description["noise"]["sigmaData"]
        root = (sigma**2 + data**2).sqrt()
        raw = self.raw(x / root, sigma.log() / 4, label)
        return data**2 / root**2 * x + sigma * data / root * raw

    def predict(self, noisy, t, label):
        """The network's prediction for sqrt(abar) clean + sqrt(1 - abar) noise."""
        abar = self.abar[t][:, None]
        log_sigma = ((1 - abar) / abar).sqrt().log()
        told = log_sigma / 4 if self.description["network"]["kind"] == "mlp" else t[:, None].to(noisy.dtype)
        return self.raw(noisy, told, label)

    def clean(self, noisy, t, label):
        abar, prediction = self.abar[t][:, None], self.predict(noisy, t, label)
        if self.form["kind"] == "v":
            return abar.sqrt() * noisy - (1 - abar).sqrt() * prediction
        return (noisy - (1 - abar).sqrt() * prediction) / abar.sqrt()


def heun(net, latent, label, steps):
    """EDM's algorithm 1."""
    low, high = net.description["noise"]["sigmaMin"], net.description["noise"]["sigmaMax"]
    levels = [(high ** (1 / 7) + i / (steps - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(steps)] + [0.0]
    x = latent * levels[0]
    slope = lambda x, s: (x - net.edm(x, torch.full((len(x), 1), s, dtype=x.dtype), label)) / s
    for now, following in zip(levels, levels[1:]):
        first = slope(x, now)
        euler = x + (following - now) * first
        x = euler if following == 0 else x + (following - now) * (first + slope(euler, following)) / 2
    return x


def ddim(net, latent, label, steps):
    """In discrete time as published (arXiv 2010.02502, equation 12 with eta = 0); in EDM's levels the same rule."""
    if net.form == EDM:
        low, high = net.description["noise"]["sigmaMin"], net.description["noise"]["sigmaMax"]
        levels = [(high ** (1 / 7) + i / (steps - 1) * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for i in range(steps)] + [0.0]
        x = latent * levels[0]
        for now, following in zip(levels, levels[1:]):
            clean = net.edm(x, torch.full((len(x), 1), now, dtype=x.dtype), label)
            x = clean + following * (x - clean) / now
        return x
    x, stride = latent, 1000 // steps
    for t in reversed(range(0, 1000, stride)):
        abar, following = net.abar[t], net.abar[t - stride] if t >= stride else torch.tensor(1.0, dtype=x.dtype)
        clean = net.clean(x, torch.full((len(x),), t), label)
        noise = (x - abar.sqrt() * clean) / (1 - abar).sqrt()
        x = following.sqrt() * clean + (1 - following).sqrt() * noise
    return x


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def save(name, description, **tensors):
    stored = {key: t.contiguous() if t.dtype != torch.float64 or key == "sigma" else t.float() for key, t in tensors.items()}
    header = json.dumps(description, sort_keys=True)
    save_file({key: t.detach() for key, t in stored.items()}, HERE / f"{name}.safetensors", {"lethe": header})


def network(name, description):
    """One call of the denoiser at several levels, and both samplers."""
    net, image = Model(description), description["image"]
    pixels = image["channels"] * image["height"] * image["width"]
    label = torch.tensor([0, 3, 1] if description["network"]["kind"] == "mlp" else [0, 3, 4])
    noise, latent = draw(1, 3, pixels).float().double(), draw(2, 3, pixels).float().double()
    with torch.no_grad():
        if net.form == EDM:
            sigma = torch.tensor([[0.03], [2.5], [40.0]], dtype=torch.float64)
            x = (sigma * noise).float().double()
            denoised = net.edm(x, sigma, label)
            samplers = {"heun": heun(net, latent, label, 4), "ddim": ddim(net, latent, label, 4)}
        else:
            t = torch.tensor([7, 440, 978])
            sigma = ((1 - net.abar[t]) / net.abar[t]).sqrt()[:, None]
            x = (sigma * noise).float().double()
            denoised = net.clean(x * net.abar[t].sqrt()[:, None], t, label)
            samplers = {"ddim": ddim(net, latent, label, 5)}
    save(name, description, x=x, sigma=sigma, label=label, denoised=denoised, latent=latent, **samplers)


def losses(name, description):
    """Both losses of SFD and the gradient of the generator's with respect to its image, through both score networks."""
    phi, psi = Model(description, salt=1), Model(description, salt=2)
    pixels = description["image"]["channels"] * description["image"]["height"] * description["image"]["width"]
    clean, noise = draw(3, 4, pixels).float().double() * 0.5, draw(4, 4, pixels).float().double()
    shown, taught = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 3, 1])
    clean = clean.float().double().requires_grad_()
    if phi.form == EDM:
        sigma = torch.tensor([[0.1], [0.7], [2.5], [9.0]], dtype=torch.float64)
        noisy = clean + sigma * noise
        real, fake = phi.edm(noisy, sigma, taught), psi.edm(noisy, sigma, shown)
        weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
        score = (weight * (fake - clean) ** 2).sum(1)
    else:
        t = torch.tensor([38, 200, 440, 711])
        abar = phi.abar[t][:, None]
        sigma = ((1 - abar) / abar).sqrt()
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        real, fake = phi.clean(noisy, t, taught), psi.clean(noisy, t, shown)
        score = ((psi.predict(noisy, t, shown) - noise) ** 2).sum(1)
    distance = (real - clean).abs().mean(1, keepdim=True).clamp(min=1e-5).detach()
    generator = ((real - fake) * ((real - clean) - ALPHA * (real - fake)) / distance).sum(1)
    (gradient,) = torch.autograd.grad(generator.sum(), clean)
    save(name, description, clean=clean, noise=noise, sigma=sigma, shown=shown, taught=taught,
         score=score, generator=generator, gradient=gradient)


def optimiser():
    """Ten steps of torch.optim.Adam with the settings of either network, and the ramped moving average."""
    start, gradients = draw(5, 16).float().double(), draw(6, 10, 16).float().double()
    tensors = {"start": start, "gradients": gradients}
    for name, beta1 in (("beta0", 0.0), ("beta9", 0.9)):
        weight = start.clone().requires_grad_()
        adam = torch.optim.Adam([weight], lr=0.01, betas=(beta1, 0.999), eps=1e-8)
        average, steps, averages = start.clone(), [], []
        for step, gradient in enumerate(gradients):
            weight.grad = gradient.clone()
            adam.step()
            decay = min(0.5, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * weight.detach()
            steps.append(weight.detach().clone())
            averages.append(average)
        tensors |= {f"{name}.weights": torch.stack(steps), f"{name}.averages": torch.stack(averages)}
    save("optimiser", {"learningRate": 0.01, "emaDecay": 0.5}, **tensors)


if __name__ == "__main__":
    torch.set_num_threads(1)
    network("mlp-edm", model(MLP, EDM, side=4, channels=1))
    network("mlp-epsilon", model(MLP, EPSILON, side=4, channels=1))
    network("ddpm-epsilon", model(DDPM, EPSILON))
    network("song-edm", model(SONG, EDM))
    network("song-v", model(SONG, V))
    network("adm-edm", model(ADM, EDM))
    losses("losses-edm", model(SONG | {"attention": [2]}, EDM, side=4, channels=1))
    losses("losses-epsilon", model(DDPM | {"attention": [2]}, EPSILON, side=4, channels=1))
    optimiser()
