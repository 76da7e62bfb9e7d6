"""Score Forgetting Distillation (arXiv 2409.11219) as a plain PyTorch loop, in the order of its authors' program:

psi on kept labels, psi on forgotten labels, a step of psi, theta on kept labels, theta on forgotten labels, a step of
theta. Every pass generates its own images and has its own backward pass.

    python sfd.py THREADS parity DIR  losses of the steps whose batches lie in DIR
    python sfd.py THREADS steps DIR   does as many steps as each line of the input says, and prints what they cost

DIR holds the models, the settings and the batches. Every answer is one line of JSON.
"""

import json
import math
import resource
import sys
import time
from pathlib import Path

import safetensors
import torch
from model import Denoiser


class Loop:
    def __init__(self, directory):
        self.directory = Path(directory)
        self.settings = self.read("settings.json")
        self.config = self.read("model.json")
        self.phi, self.psi, self.theta = (self.load(name) for name in ("teacher", "fake_score", "generator"))
        self.phi.requires_grad_(False)
        self.average = self.theta.duplicate()
        betas, optimiser = (0.0, 0.999), torch.optim.Adam
        self.psi_optimiser = optimiser(self.psi.parameters(), lr=0.0, betas=betas)
        self.theta_optimiser = optimiser(self.theta.parameters(), lr=0.0, betas=betas)
        self.step_number = 0

    def read(self, name):
        return json.loads((self.directory / name).read_text())

    def load(self, name):
        return Denoiser.read(self.config, self.directory / f"{name}.safetensors")

    def generate(self, latent, label):
        sigma_init = self.config["noise"]["sigmaInit"]
        sigma = torch.full((len(latent), 1), sigma_init)
        return self.theta(latent * sigma_init, sigma, label)

    def psi_loss(self, part):
        """psi denoises what theta emits."""
        with torch.no_grad():
            clean = self.generate(part["fake.latent"], part["shown"])
        sigma, data = part["fake.sigma"], self.config["noise"]["sigmaData"]
        denoised = self.psi(clean + sigma * part["fake.noise"], sigma, part["shown"])
        weight = (sigma**2 + data**2) / (sigma * data) ** 2
        return (weight * (denoised - clean) ** 2).sum(1).mean()

    def theta_loss(self, part):
        """Where phi and psi disagree about theta's images, phi is right; it is asked for the replacement."""
        clean = self.generate(part["generator.latent"], part["shown"])
        sigma = part["generator.sigma"]
        noisy = clean + sigma * part["generator.noise"]
        real = self.phi(noisy, sigma, part["taught"])
        fake = self.psi(noisy, sigma, part["shown"])
        with torch.no_grad():
            distance = (real - clean).abs().mean(1, keepdim=True).clamp(min=1e-5)
        alpha = self.settings["optimiser"]["alpha"]
        difference = real - fake
        return (difference * (real - clean - alpha * difference) / distance).sum(1).mean()

    def step(self, remain, forget):
        """One iteration; the four losses."""
        settings = self.settings
        psi = self.update(
            self.psi, self.psi_optimiser, self.psi_loss, remain, forget, "fakeScore"
        )
        theta = self.update(
            self.theta, self.theta_optimiser, self.theta_loss, remain, forget, "generator"
        )
        decay = min(settings["optimiser"]["emaDecay"], (1 + self.step_number) / (10 + self.step_number))
        with torch.no_grad():
            for average, current in zip(self.average.parameters(), self.theta.parameters()):
                average.lerp_(current, 1 - decay)
        self.step_number += 1
        return psi + theta

    def update(self, model, optimiser, loss_of, remain, forget, name):
        rate, weights = self.settings[f"{name}LearningRate"], self.settings[f"{name}Weights"]
        for one in (self.psi, self.theta):
            one.requires_grad_(one is model)
        optimiser.zero_grad()
        losses = []
        for part, weight in ((remain, weights["remain"]), (forget, weights["forget"])):
            loss = loss_of(part)
            (weight * loss).backward()
            losses.append(loss.detach())
        clip = self.settings["optimiser"]["clip"]
        torch.nn.utils.clip_grad_value_(model.parameters(), clip)
        for group in optimiser.param_groups:
            group["lr"] = rate * self.schedule()
        optimiser.step()
        return losses

    def schedule(self):
        """A linear rise, then a cosine to zero over the last part."""
        optimiser, step = self.settings["optimiser"], self.step_number
        rise = min((step + 1) / max(optimiser["warmupSteps"], 1), 1.0)
        start = 1 - optimiser["decay"]
        fall = min(max((step / self.settings["steps"] - start) / max(optimiser["decay"], 1e-300), 0.0), 1.0)
        return rise * 0.5 * (1 + math.cos(math.pi * fall))

    def draw(self, size, shown, taught):
        """A random batch with labels drawn from `shown`."""
        image, noise = self.config["image"], self.config["noise"]
        pixels = image["channels"] * image["height"] * image["width"]
        low, high = (noise[name] ** (1 / 7) for name in ("sigmaMin", "sigmaMax"))
        index = torch.randint(len(shown), (size,))
        return {
            "shown": torch.tensor(shown)[index],
            "taught": torch.tensor(taught)[index],
            "fake.latent": torch.randn(size, pixels),
            "fake.sigma": (1.2 * torch.randn(size, 1) - 1.2).exp(),
            "fake.noise": torch.randn(size, pixels),
            "generator.latent": torch.randn(size, pixels),
            "generator.sigma": (low + 0.8 * torch.rand(size, 1) * (high - low)) ** 7,
            "generator.noise": torch.randn(size, pixels),
        }


def parity(loop):
    batches = safetensors.read(loop.directory / "batches.safetensors")
    steps = 1 + max(int(name.split(".")[0]) for name in batches)
    remain = loop.settings["remainBatch"]
    losses = []
    for step in range(steps):
        prefix = f"{step:02}."
        batch = {name[len(prefix) :]: value for name, value in batches.items() if name.startswith(prefix)}
        parts = [{name: value[where] for name, value in batch.items()} for where in (slice(remain), slice(remain, None))]
        losses.append([loss.item() for loss in loop.step(*parts)])
    return {"losses": losses}


def steps(loop):
    kept, forgotten = loop.settings["kept"], loop.settings["forgotten"]
    shown, taught = [pair[0] for pair in forgotten], [pair[1] for pair in forgotten]

    def once():
        remain = loop.draw(loop.settings["remainBatch"], kept, kept)
        return loop.step(remain, loop.draw(loop.settings["forgetBatch"], shown, taught))

    for line in sys.stdin:
        start, worked = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            losses = once()
        assert all(loss.isfinite() for loss in losses)
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer({"seconds": seconds, "processorSeconds": worked, "peakBytes": peak})


def answer(value):
    print(json.dumps(value), flush=True)


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(1)
    loop = Loop(sys.argv[3])
    if sys.argv[2] == "parity":
        answer(parity(loop))
    else:
        steps(loop)


main()
