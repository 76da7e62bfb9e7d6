"""Turns a checkpoint of the published code into a bundle that a DiffusionModel can name as its base.

  python3 -m lethe_import cifar10.pth --image-size 32 --out base
  python3 -m lethe_import edm-cifar10-32x32-cond-vp.pkl --out base
  python3 -m lethe_import --seal base      after model.json was changed, or around a .safetensors file of your own

Reads the `.pth` lists of the code published with SFD, dictionaries of tensors, and EDM's pickles. Nothing in them is
executed: pickles are read as data, and one that names anything but tensors is refused.
"""

import argparse
import sys

from . import Refused, archive, bundle, describe, networks

BAD_COMMAND, BAD_ARTIFACT, BAD_CONFIGURATION = 64, 65, 78

# Whatever in a stranger's file nobody thought of: its importer gets a line all the same, and the exit code of a bad file.
NOT_FORESEEN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError)


def one_line(text):
    """Names come from the file: none may break the line, or speak to the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


class Parser(argparse.ArgumentParser):
    """Whose own exit code for a bad command line is 2, below its usage."""

    def error(self, message):
        self.exit(BAD_COMMAND, f"{self.prog}: {one_line(message)}; --help says what there is\n")


def main(arguments=None):
    parser = Parser(
        prog="lethe_import", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a .pth or .pkl file; with --seal, a folder with model.json and model.safetensors")
    parser.add_argument("--out", help="folder to make")
    parser.add_argument("--seal", action="store_true", help="write the manifest of what is in the folder, and print its digest")
    parser.add_argument("--network", default="ema", choices=networks.CHOICES, help="which one of the checkpoint's networks")
    parser.add_argument("--labels", type=lambda text: text.split(","), help="names of the labels, in order, with commas between")
    parser.add_argument("--image-size", type=int, choices=range(1, 16385), metavar="PIXELS", help="pixels of one side, where the network does not say")
    parser.add_argument("--kind", default="Teacher", choices=["Teacher", "Generator", "Distillation"], help="of the bundle")
    chosen = parser.parse_args(arguments)
    if chosen.seal == bool(chosen.out):
        parser.error("--out names the folder to make, and belongs to whatever is not --seal")
    try:
        if chosen.seal:
            print(bundle.seal(chosen.checkpoint, chosen.kind))
            return 0
        with open(chosen.checkpoint, "rb") as file:
            opened = archive.load(file)
            tensors, sigma_data = networks.find(opened, chosen.network)
            model = describe.describe(tensors, sigma_data, chosen.labels, chosen.image_size)
            digest = bundle.write(chosen.out, chosen.kind, model, tensors)
    except Refused as refused:
        print(f"{chosen.checkpoint}: {one_line(str(refused))}", file=sys.stderr)
        return BAD_ARTIFACT
    except NOT_FORESEEN as error:
        print(f"{chosen.checkpoint}: a checkpoint that is put together in a way that no tool writes "
              f"({type(error).__name__}); get it from its authors", file=sys.stderr)
        return BAD_ARTIFACT
    except OSError as error:
        print(f"{chosen.checkpoint}: {error}", file=sys.stderr)
        return BAD_CONFIGURATION
    print(f"{len(tensors)} tensors, a {model['network']['kind']}, in {chosen.out}", file=sys.stderr)
    print(digest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
