import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import unittest
from array import array
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from lethe_import import Refused, archive, networks
from lethe_import.__main__ import main

from . import forge
from .forge import Tensor


def random(shape, seed=0):
    count = 1
    for size in shape:
        count *= size
    return Tensor([((seed + at) * 37 % 101) / 64 for at in range(count)], shape, parameter=True)


def ddpm(channels=32, classes=3):
    """Those tensors of a DDPM U-Net that tell its sizes."""
    shapes = {
        "conv_in.weight": [channels, 1, 3, 3],
        "temb.dense.0.weight": [4 * channels, channels],
        "classes_emb.weight": [classes, channels],
    }
    for level, width in enumerate([channels, 2 * channels]):
        shapes[f"down.{level}.block.0.conv1.weight"] = [width, channels, 3, 3]
    shapes["down.1.attn.0.q.weight"] = [2 * channels, 2 * channels, 1, 1]
    return {name: random(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}


def song(channels=16):
    """Those tensors of a DDPM++ network that tell its sizes."""
    part = lambda *shape: {"weight": random(shape)}
    return {
        "map_label": part(channels, 4),
        "map_augment": part(channels, 9),
        "map_layer0": part(4 * channels, channels),
        "enc": {
            "8x8_conv": part(channels, 3, 3, 3),
            "8x8_block0": {"conv0": part(channels, channels, 3, 3)},
            "4x4_block0": {"conv0": part(2 * channels, channels, 3, 3), "qkv": part(6 * channels, 2 * channels, 1, 1)},
        },
        "dec": {"8x8_aux_conv": part(3, channels, 3, 3)},
    }


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_on(self, checkpoint, *arguments):
        """Exit code, the bundle's folder, and what was said."""
        file, out = self.folder / "checkpoint", self.folder / "out"
        file.write_bytes(checkpoint)
        said, told = io.StringIO(), io.StringIO()
        with redirect_stderr(told), redirect_stdout(said):
            code = main([str(file), "--out", str(out), *arguments])
        return code, out, said.getvalue() + told.getvalue()

    def imported(self, checkpoint, *arguments):
        """The model's description, its tensors as (shape, numbers), and the digest."""
        code, out, said = self.run_on(checkpoint, *arguments)
        self.assertEqual(code, 0, said)
        weights = (out / "model.safetensors").read_bytes()
        size = int.from_bytes(weights[:8], "little")
        tensors = {}
        for name, entry in json.loads(weights[8:8 + size]).items():
            numbers = array("f")
            numbers.frombytes(weights[8 + size:][slice(*entry["data_offsets"])])
            tensors[name] = (entry["shape"], list(numbers))
        return json.loads((out / "model.json").read_bytes()), tensors, said.split()[0]

    def refusal(self, checkpoint, *arguments):
        code, out, said = self.run_on(checkpoint, *arguments)
        self.assertEqual(code, 65, said)
        self.assertFalse(out.exists())
        self.assertEqual([path.name for path in self.folder.iterdir()], ["checkpoint"])
        self.assertEqual(said.count("\n"), 1, said)
        return said


class Imports(Case):
    def test_a_teacher_of_the_published_code(self):
        network = ddpm()
        with forge.torch() as known:
            raw = {f"module.{name}": tensor for name, tensor in network.items()}
            state = [raw, {"state": {0: {"step": 7}}}, 7, network]
            for write in (forge.archive, forge.legacy):
                model, tensors, digest = self.imported(write(state, known), "--image-size", "8", "--labels", "a,b,c")
                self.assertEqual(model["schema"], "lethe.dev/model/v1")
                self.assertEqual(model["model"]["labels"], ["a", "b", "c"])
                self.assertEqual(model["model"]["image"], {"channels": 1, "height": 8, "width": 8})
                expected = {"kind": "ddpmUnet", "channels": 32, "multipliers": [1, 2], "blocks": 1, "attention": [4]}
                self.assertEqual(model["model"]["network"], expected)
                self.assertEqual(model["model"]["parametrisation"]["kind"], "epsilon")
                wanted = {name: (list(t.shape), t.storage.values) for name, t in network.items()}
                self.assertEqual(tensors, wanted)
                self.assertRegex(digest, "^sha256:[0-9a-f]{64}$")
                self.clear()

    def clear(self):
        for path in (self.folder / "out").iterdir():
            path.unlink()
        (self.folder / "out").rmdir()

    def test_each_network_of_a_list_is_the_one_asked_for(self):
        mark = lambda value: {name: Tensor([value] * len(t.storage.values), t.shape) for name, t in ddpm().items()}
        with forge.torch() as known:
            state = forge.archive([mark(1.0), {}, mark(2.0), {}, 7, mark(3.0)], known)
            teacher = forge.archive([mark(4.0), {}, 7, mark(5.0)], known)
        for checkpoint, network, value in [
            (state, "fake-score", 1.0), (state, "generator", 2.0), (state, "ema", 3.0),
            (teacher, "model", 4.0), (teacher, "ema", 5.0),
        ]:
            tensors = self.imported(checkpoint, "--image-size", "8", "--network", network)[1]
            self.assertEqual(tensors["conv_in.weight"][1][0], value, network)
            self.clear()
        self.assertIn("no network 'model'; choose with --network: fake-score, generator, ema",
                      self.refusal(state, "--image-size", "8", "--network", "model"))

    def test_an_edm_pickle(self):
        with forge.torch() as known:
            model, tensors, _ = self.imported(forge.edm(song(), known, sigma_data=0.25))
        expected = {"kind": "songUnet", "channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [4],
                    "augmentations": 9}
        self.assertEqual(model["model"]["network"], expected)
        self.assertEqual(model["model"]["noise"]["sigmaData"], 0.25)
        self.assertEqual(model["model"]["labels"], ["0", "1", "2", "3"])
        self.assertEqual(tensors["model.enc.8x8_conv.weight"][1], random([16, 3, 3, 3]).storage.values)

    def test_numbers_of_every_width_and_layout(self):
        values = [0.5, -2.0, 1.25, 3.0, 0.0, -0.125]
        with forge.torch() as known:
            for kind in ("FloatStorage", "HalfStorage", "DoubleStorage", "BFloat16Storage"):
                plain = Tensor(values, [2, 3], kind=kind)
                turned = Tensor(values, [3, 2], strides=[1, 3], kind=kind)
                part = Tensor(values, [2, 2], strides=[3, 1], offset=1, kind=kind)
                opened = archive.load(io.BytesIO(forge.archive([plain, turned, part], known)))
                found = [list(opened.tensor(node).floats()) for node in opened.root]
                self.assertEqual(found, [values, [0.5, 3.0, -2.0, 0.0, 1.25, -0.125], [-2.0, 1.25, 0.0, -0.125]])

    def test_the_manifest_names_what_was_written(self):
        with forge.torch() as known:
            _, out, said = self.run_on(forge.edm(song(), known))
        manifest = json.loads((out / "manifest.json").read_bytes())
        self.assertEqual((manifest["schema"], manifest["kind"]), ("lethe.dev/manifest/v1", "Teacher"))
        for name, entry in manifest["files"].items():
            self.assertEqual(entry["bytes"], (out / name).stat().st_size)
        self.assertEqual(sorted(manifest["files"]), ["model.json", "model.safetensors"])


class Hostile(Case):
    """Checkpoints that would run a program if they were loaded: none of them may."""

    def program(self):
        """Something to call, and the file that shows that it was called."""
        trace = self.folder.parent / f"{self.folder.name}-trace"
        self.addCleanup(lambda: trace.unlink(missing_ok=True))
        return trace, f"touch {trace}"

    def assert_harmless(self, make):
        trace, command = self.program()
        with forge.torch() as known:
            for checkpoint in make(command, known):
                said = self.refusal(checkpoint, "--image-size", "8")
                self.assertFalse(trace.exists())
        return said

    def test_a_call_of_the_shell(self):
        def make(command, known):
            call = forge.Call(os.system, command)
            for root in (call, [ddpm(), call, 7, ddpm()], {"ema": call}):
                yield forge.archive(root, known)
                yield forge.legacy(root, known)
                for protocol in range(2, 6):
                    file = io.BytesIO()
                    forge.Pickler(file, known, inline=True, protocol=protocol).dump(root)
                    yield file.getvalue()
        self.assertIn("system", self.assert_harmless(make))

    def test_the_same_pickles_do_run_when_they_are_loaded(self):
        # Otherwise the other tests would show nothing.
        trace, command = self.program()
        pickle.loads(pickle.dumps(forge.Call(os.system, command)))
        self.assertTrue(trace.exists())

    def test_names_in_old_instructions(self):
        def make(command, _):
            argument = command.encode()
            yield b"\x80\x02cposix\nsystem\n(V" + argument + b"\ntR."
            yield b"\x80\x02(V" + argument + b"\niposix\nsystem\n."
            yield b"\x80\x02(cposix\nsystem\nV" + argument + b"\no."
            yield b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93V" + argument + b"\n\x85R."
            yield b"\x80\x02\x82\x01."
            yield b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n."
        self.assert_harmless(make)

    def test_the_source_in_an_edm_pickle_is_not_run(self):
        # `forge.edm` puts `raise SystemExit` where EDM puts its source.
        with forge.torch() as known:
            self.assertEqual(self.run_on(forge.edm(song(), known))[0], 0)

    def test_a_pickle_in_a_pickle(self):
        def make(command, known):
            inner = pickle.dumps(forge.Call(os.system, command))
            storage = forge.Call(known["_load_from_bytes"], inner)
            tensor = forge.Call(known["_rebuild_tensor_v2"], storage, 0, (1,), (1,), False, None)
            yield pickle.dumps({"ema": tensor, "x": tensor}, 4)
        self.assert_harmless(make)


class Broken(Case):
    def test_truncated_anywhere(self):
        with forge.torch() as known:
            wholes = [forge.archive([ddpm(), None, 7, ddpm()], known), forge.legacy([ddpm(), None, 7, ddpm()], known),
                      forge.edm(song(), known)]
        for whole in wholes:
            for length in [0, 1, 5, 100, len(whole) // 2, len(whole) - 1]:
                self.refusal(whole[:length], "--image-size", "8")

    def test_flipped_bytes_never_end_in_anything_but_a_refusal(self):
        with forge.torch() as known:
            wholes = [(forge.edm(song(4), known), "ema"), (forge.archive([ddpm(), None, 7], known), "model"),
                      (forge.legacy([ddpm(), None, 7], known), "model")]
        for whole, network in wholes:
            for position in range(0, len(whole), 41):
                spoilt = bytearray(whole)
                spoilt[position] ^= 0x15
                opened = io.BytesIO(bytes(spoilt))
                try:
                    networks.find(archive.load(opened), network)
                except Refused:
                    pass

    def test_a_parameter_or_a_key_made_of_nothing(self):
        with forge.torch() as known:
            empty = forge.Call(known["_rebuild_parameter"])
            whole = forge.archive([ddpm() | {"more": empty}, None, 7], known)
            nested = forge.archive([ddpm() | {"more": forge.Call(known["_rebuild_parameter"], empty)}, None, 7], known)
            old = forge.legacy([ddpm(), None, 7], known)
        by_hand = pickle.dumps({"a": 1}, 2).replace(b"K\x01", b"ctorch._utils\n_rebuild_parameter\n)R")
        for checkpoint in (whole, nested, by_hand):
            said = self.refusal(checkpoint, "--image-size", "8", "--network", "model")
            self.assertIn("made of nothing", said)
        keys = pickle.dumps(["0", "1", "2", "3", "4", "5"], 2)
        self.assertEqual(old.count(keys), 1)
        # A list in place of the name of a storage: no dictionary can look it up.
        self.assertIn("do not fit", self.refusal(
            old.replace(keys, pickle.dumps([["0"]], 2)), "--image-size", "8", "--network", "model"))

    def test_an_announced_size_that_no_memory_holds(self):
        self.assertIn("not a pickle", self.refusal(b"\x80\x04\x8e" + (2**50).to_bytes(8, "little")))

    def test_what_nobody_thought_of_is_a_line_too(self):
        # Too many digits to be printed, in the place of a name.
        with forge.torch() as known:
            said = self.refusal(forge.edm(song(), known, form=10**5000))
        self.assertIn("no tool writes", said)

    def test_a_name_cannot_break_the_line_or_speak_to_the_terminal(self):
        with forge.torch() as known:
            whole = forge.archive([ddpm() | {"more\n\x1b[2J": Tensor([1.0], [9])}, None, 7], known)
        said = self.refusal(whole, "--image-size", "8", "--network", "model")
        self.assertIn("more??[2J", said)

    def test_numbers_that_are_none(self):
        for value, word in [(float("nan"), "not finite"), (float("inf"), "not finite")]:
            network = ddpm()
            network["temb.dense.0.weight"].storage.values[5] = value
            with forge.torch() as known:
                said = self.refusal(forge.archive([network, None, 7], known), "--image-size", "8", "--network", "model")
            self.assertIn("tensor temb.dense.0.weight", said)
            self.assertIn(word, said)

    def test_tensors_that_lie_about_their_size(self):
        for shape, strides, offset in [([9], None, 0), ([2, 2], None, 3), ([2**30, 2], [0, 0], 0), ([2], [5], 0)]:
            network = ddpm() | {"more": Tensor([1.0] * 4, shape, strides, offset)}
            with forge.torch() as known:
                said = self.refusal(forge.archive([network, None, 7], known), "--image-size", "8", "--network", "model")
            self.assertIn("tensor more: it reaches beyond", said)

    def test_whole_numbers_are_no_weights(self):
        network = ddpm() | {"steps": Tensor([1, 2], [2], kind="LongStorage")}
        with forge.torch() as known:
            said = self.refusal(forge.archive([network, None, 7], known), "--image-size", "8", "--network", "model")
        self.assertIn("tensor steps: it holds i64", said)

    def test_what_is_no_checkpoint_is_refused_with_what_to_do(self):
        with forge.torch() as known:
            whole = forge.archive([ddpm(), None, 7, ddpm()], known)
            ve = forge.edm(song(), known, form="VEPrecond")
            nothing = forge.archive({"a": random([2])}, known)
            unconditional = {name: part for name, part in song().items() if name != "map_label"}
            without_labels = forge.edm(unconditional, known)
            cycle = {"ema": None}
            cycle["ema"] = cycle
            cyclic = forge.archive(cycle, known)
        self.assertIn("--image-size", self.refusal(whole))
        self.assertIn("3 labels", self.refusal(whole, "--image-size", "8", "--labels", "a,b"))
        self.assertIn("3 labels", self.refusal(whole, "--image-size", "8", "--labels", "a,b,b"))
        self.assertIn("'VEPrecond'", self.refusal(ve))
        self.assertIn("'a'", self.refusal(nothing))
        self.assertIn("no labels", self.refusal(without_labels))
        self.assertIn("needs no import", self.refusal(b"\x40\0\0\0\0\0\0\0{}"))
        self.assertIn("is no tensor", self.refusal(cyclic))
        self.assertIn("list of 2", self.refusal(pickle.dumps([1, 2])))

    def test_an_existing_folder_is_left_alone(self):
        (self.folder / "out").mkdir()
        with forge.torch() as known:
            code, out, said = self.run_on(forge.edm(song(), known))
        self.assertEqual((code, list(out.iterdir())), (65, []))
        self.assertIn("exists already", said)

    def seal(self, folder):
        said, told = io.StringIO(), io.StringIO()
        with redirect_stderr(told), redirect_stdout(said):
            code = main(["--seal", str(folder)])
        return code, said.getvalue() + told.getvalue()

    def test_a_folder_is_sealed_again_after_its_description_was_changed(self):
        with forge.torch() as known:
            code, out, said = self.run_on(forge.edm(song(), known))
        self.assertEqual(code, 0, said)
        first = said.split()[0]
        self.assertEqual(self.seal(out), (0, first + "\n"), "nothing was changed")
        model = json.loads((out / "model.json").read_bytes())
        model["model"]["noise"]["sigmaInit"] = 1.5
        (out / "model.json").write_text(json.dumps(model))
        code, said = self.seal(out)
        manifest = (out / "manifest.json").read_bytes()
        self.assertEqual((code, said), (0, "sha256:" + hashlib.sha256(manifest).hexdigest() + "\n"))
        entry = json.loads(manifest)["files"]["model.json"]
        self.assertEqual(entry["bytes"], (out / "model.json").stat().st_size)
        self.assertNotEqual(said.strip(), first)
        self.assertEqual(sorted(path.name for path in out.iterdir()), ["manifest.json", "model.json", "model.safetensors"])

    def test_a_folder_that_is_no_bundle_is_not_sealed(self):
        out = self.folder / "out"
        out.mkdir()
        self.assertIn("no model.json", self.seal(out)[1])
        (out / "model.json").write_text("[]")
        self.assertIn("no model.safetensors", self.seal(out)[1])
        (out / "model.safetensors").write_bytes(b"")
        code, said = self.seal(out)
        self.assertEqual((code, said.count("\n"), (out / "manifest.json").exists()), (65, 1, False))
        self.assertIn("lethe.dev/model/v1", said)

    def test_a_missing_file_is_a_configuration_to_be_corrected(self):
        arguments = [sys.executable, "-m", "lethe_import", "nowhere.pth", "--out", str(self.folder / "out")]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (78, 1), done.stderr)

    def test_a_command_line_that_cannot_be_read_is_one_line_and_64(self):
        for arguments in (["--nonsense"], ["teacher.pth", "--out", "base", "--image-size", "large"],
                          ["teacher.pth"], ["base", "--seal", "--out", "other"]):
            command = [sys.executable, "-m", "lethe_import", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (64, 1), done.stderr)


if __name__ == "__main__":
    unittest.main()
