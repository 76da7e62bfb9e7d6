"""Compares the golden files beside it with the published programs, which are read from where you have them:

    pip install torch numpy safetensors einops click tqdm pillow requests
    python3 published.py --sfd CHECKOUT --edm CHECKOUT

`--sfd` is tqch/score-forgetting-distillation (its DDPM: network, both losses, DDIM; made to compute in double precision),
`--edm` is NVlabs/edm (both networks in EDM's preconditioning, and its sampler, in single). Every value has to agree within
TOLERANCE of the largest. Nothing of them is kept here.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from networks import Weights
from safetensors import safe_open

HERE = Path(__file__).parent
TOLERANCE = 1e-5


def golden(name):
    """The description of the model, and all tensors by name."""
    with safe_open(HERE / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["lethe"]), {key: file.get_tensor(key) for key in file.keys()}


def filled(module, salt=0):
    """The module with the weights that are a function of their names and shapes. Its own constants stay."""
    weights = Weights(salt)
    table = {
        name: own if name.endswith("resample_filter") else torch.from_numpy(weights.draw(name, tuple(own.shape)))
        for name, own in module.state_dict().items()
    }
    module.load_state_dict(table)
    return module.eval()


def images(description, rows):
    image = description["image"]
    return rows.reshape(-1, image["channels"], image["height"], image["width"])


class Report:
    def __init__(self):
        self.worst = 0.0

    def compare(self, what, theirs, ours):
        ours = ours.float()
        error = ((theirs.detach().float().reshape(ours.shape) - ours).abs().max() / ours.abs().max()).item()
        self.worst = max(self.worst, error)
        print(f"{what:45} {error:.1e}{'' if error <= TOLERANCE else '  DIFFERS'}")


def ddpm(description, salt=0):
    from models.diffusion import Conditional_Model, ResnetBlock

    network, image = description["network"], description["image"]
    # The published blocks are told of a label's embedding in the width of 128 channels, whatever the network's is.
    ResnetBlock.__init__.__kwdefaults__["cemb_channels"] = 4 * network["channels"]
    model = SimpleNamespace(type="sid", in_channels=image["channels"], out_ch=image["channels"], ch=network["channels"],
                            ch_mult=network["multipliers"], num_res_blocks=network["blocks"], dropout=0.0,
                            attn_resolutions=network["attention"], resamp_with_conv=True, cond_drop_prob=0.0)
    data = SimpleNamespace(image_size=image["height"], n_classes=len(description["labels"]))
    steps = SimpleNamespace(num_diffusion_timesteps=description["parametrisation"]["steps"])
    module = filled(Conditional_Model(SimpleNamespace(model=model, data=data, diffusion=steps)), salt).double()
    # Waves of a timestep come in single precision in any case.
    module.temb.dense[0].register_forward_pre_hook(lambda _, given: (given[0].double(),))
    return module


def betas(description):
    form = description["parametrisation"]
    return torch.linspace(form["betaStart"], form["betaEnd"], form["steps"], dtype=torch.float64)


def timesteps(alpha_bar, sigma):
    return (1 / (1 + sigma.double() ** 2) - alpha_bar).abs().argmin(1)


def sfd(report):
    from functions.denoising import generalized_steps_conditional
    from functions.losses import sid_g_loss_conditional, sid_sg_loss_conditional

    description, file = golden("ddpm-epsilon")
    model, b = ddpm(description), betas(description)
    alpha_bar = (1 - b).cumprod(0)
    t = timesteps(alpha_bar, file["sigma"])
    abar = alpha_bar[t][:, None]
    noisy = file["x"].double() * abar.sqrt()
    is_null = file["label"] == len(description["labels"])
    known = file["label"].masked_fill(is_null, 0)
    noise = model(images(description, noisy), t.float(), known, mode="train", cond_drop_prob=0.0, cond_drop_mask=is_null)
    clean = (noisy - (1 - abar).sqrt() * noise.reshape(len(noisy), -1)) / abar.sqrt()
    report.compare("DDPM U-Net: one denoising, null label too", clean, file["denoised"])
    latent = images(description, file["latent"].double())[~is_null]
    steps = range(0, 1000, 200)
    states, _ = generalized_steps_conditional(latent, file["label"][~is_null], steps, model, b, cond_scale=0.0)
    report.compare("DDPM U-Net: DDIM, 5 steps", states[-1], file["ddim"][~is_null])

    description, file = golden("losses-epsilon")
    phi, psi, b = ddpm(description, 1), ddpm(description, 2), betas(description)
    t = timesteps((1 - b).cumprod(0), file["sigma"])
    clean, noise = (images(description, file[name].double()) for name in ("clean", "noise"))
    clean.requires_grad_()
    score = sid_sg_loss_conditional(psi, clean, t, file["shown"], noise, b, keepdim=True)
    report.compare("loss of the fake score", score, file["score"])
    generator = sid_g_loss_conditional(phi, psi, clean, t, file["taught"], file["shown"], noise, b, 1.2, keepdim=True)
    report.compare("loss of the generator", generator, file["generator"])
    (gradient,) = torch.autograd.grad(generator.sum(), clean)
    report.compare("its gradient, through both scores", gradient, file["gradient"])


def edm(report):
    from generate import edm_sampler
    from training.networks import EDMPrecond

    for name, kind in (("song-edm", "SongUNet"), ("adm-edm", "DhariwalUNet")):
        description, file = golden(name)
        network, noise = description["network"], description["noise"]
        classes = len(description["labels"])
        model = filled(EDMPrecond(
            img_resolution=description["image"]["height"], img_channels=description["image"]["channels"],
            label_dim=classes, sigma_data=noise["sigmaData"], model_type=kind, dropout=0.0,
            augment_dim=network["augmentations"], model_channels=network["channels"],
            channel_mult=network["multipliers"], num_blocks=network["blocks"], attn_resolutions=network["attention"]))
        label = torch.nn.functional.one_hot(file["label"], classes + 1)[:, :classes].float()
        x, sigma = images(description, file["x"]), file["sigma"].float().flatten()
        report.compare(f"{kind}: one denoising, null label too", model(x, sigma, label), file["denoised"])
        levels = {"num_steps": 4, "sigma_min": noise["sigmaMin"], "sigma_max": noise["sigmaMax"]}
        sampled = edm_sampler(model, images(description, file["latent"]), label, **levels)
        report.compare(f"{kind}: Heun, 4 levels", sampled, file["heun"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sfd", type=Path)
    parser.add_argument("--edm", type=Path)
    arguments, report = parser.parse_args(), Report()
    torch.set_num_threads(1)
    for checkout, inside, check in ((arguments.sfd, "DDPM", sfd), (arguments.edm, ".", edm)):
        if checkout is not None:
            sys.path.insert(0, str(checkout / inside))
            check(report)
            sys.path.pop(0)
            # Both have packages of these names.
            for name in [name for name in sys.modules if name.split(".")[0] in ("dnnlib", "torch_utils", "generate")]:
                del sys.modules[name]
    sys.exit(report.worst > TOLERANCE)
