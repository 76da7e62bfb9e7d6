//! The files of a bundle, and all that can be wrong with them.

use std::{collections::HashMap, fs, path::Path};

use lethe_api::contract::{Digest, Manifest};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{TensorView, serialize},
};
use serde_json::{Value, json};

type Damage = (&'static str, fn(&Path));

/// What may happen to a bundle's folder after it was written.
pub(crate) const DAMAGES: [Damage; 13] = [
    ("gone", |folder| fs::remove_dir_all(folder).unwrap()),
    ("no manifest", |folder| fs::remove_file(folder.join(Manifest::FILE)).unwrap()),
    ("no weights", |folder| fs::remove_file(folder.join(Manifest::WEIGHTS)).unwrap()),
    ("no description", |folder| fs::remove_file(folder.join(Manifest::MODEL)).unwrap()),
    ("manifest cut", |folder| cut(&folder.join(Manifest::FILE))),
    ("weights cut", |folder| cut(&folder.join(Manifest::WEIGHTS))),
    ("description cut", |folder| cut(&folder.join(Manifest::MODEL))),
    ("manifest longer", |folder| lengthen(&folder.join(Manifest::FILE))),
    ("weights longer", |folder| lengthen(&folder.join(Manifest::WEIGHTS))),
    ("description longer", |folder| lengthen(&folder.join(Manifest::MODEL))),
    ("manifest changed", |folder| change(&folder.join(Manifest::FILE))),
    ("weights changed", |folder| change(&folder.join(Manifest::WEIGHTS))),
    ("description changed", |folder| change(&folder.join(Manifest::MODEL))),
];

fn cut(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

fn lengthen(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, [&bytes[..], b" "].concat()).unwrap();
}

fn change(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// A bundle as it lies in its folder.
#[derive(Clone)]
pub(crate) struct Files {
    manifest: Vec<u8>,
    weights: Vec<u8>,
    model: Vec<u8>,
}

impl Files {
    pub(crate) fn read(folder: &Path) -> Self {
        let read = |file: &str| fs::read(folder.join(file)).unwrap();
        Self {
            manifest: read(Manifest::FILE),
            weights: read(Manifest::WEIGHTS),
            model: read(Manifest::MODEL),
        }
    }

    /// Puts it where a bundle with this manifest belongs.
    pub(crate) fn put(&self, bundles: &Path) -> Digest {
        let digest = Digest::of(&self.manifest);
        let folder = bundles.join(digest.hex());
        fs::create_dir_all(&folder).unwrap();
        for (file, bytes) in [
            (Manifest::FILE, &self.manifest),
            (Manifest::WEIGHTS, &self.weights),
            (Manifest::MODEL, &self.model),
        ] {
            fs::write(folder.join(file), bytes).unwrap();
        }
        digest
    }

    fn with_manifest(&self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest: Value = serde_json::from_slice(&self.manifest).unwrap();
        change(&mut manifest);
        Self { manifest: manifest.to_string().into_bytes(), ..self.clone() }
    }

    fn with_weights(&self, weights: Vec<u8>) -> Self {
        Self { weights, ..self.clone() }.sealed()
    }

    fn with_model(&self, change: impl FnOnce(&mut Value)) -> Self {
        let mut model: Value = serde_json::from_slice(&self.model).unwrap();
        change(&mut model);
        self.with_model_bytes(model.to_string().into_bytes())
    }

    fn with_model_bytes(&self, model: Vec<u8>) -> Self {
        Self { model, ..self.clone() }.sealed()
    }

    /// With a manifest that is right about the files.
    fn sealed(self) -> Self {
        self.with_manifest(|manifest| {
            for (file, bytes) in [(Manifest::WEIGHTS, &self.weights), (Manifest::MODEL, &self.model)] {
                manifest["files"][file] = json!({"digest": Digest::of(bytes), "bytes": bytes.len()});
            }
        })
    }

    fn with_tensors(&self, change: impl FnOnce(&mut Vec<Tensor>)) -> Self {
        let file = SafeTensors::deserialize(&self.weights).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&self.weights).unwrap();
        let tensor = |(name, view): (String, TensorView<'_>)| {
            (name, view.dtype(), view.shape().to_vec(), view.data().to_vec())
        };
        let mut tensors: Vec<Tensor> = file.tensors().into_iter().map(tensor).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        change(&mut tensors);
        let header: Option<HashMap<String, String>> = metadata.metadata().clone();
        self.with_weights(serialize(tensors.iter().map(view), header).unwrap())
    }
}

type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

fn view((name, dtype, shape, data): &Tensor) -> (String, TensorView<'_>) {
    (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
}

/// Bundles that are intact, and not what has to be in their place.
pub(crate) fn impostors(good: &Files) -> Vec<(&'static str, Files)> {
    [other_manifests(good), foreign_weights(good), other_tensors(good), other_models(good)].concat()
}

fn other_manifests(good: &Files) -> Vec<(&'static str, Files)> {
    let manifest: Value = serde_json::from_slice(&good.manifest).unwrap();
    let kind = if manifest["kind"] == "Judge" { "Teacher" } else { "Judge" };
    let entry = manifest["files"][Manifest::MODEL].clone();
    let more = |name: &'static str| good.with_manifest(|manifest| manifest["files"][name] = entry.clone());
    vec![
        ("of another kind", good.with_manifest(|manifest| manifest["kind"] = json!(kind))),
        ("of no kind", good.with_manifest(|manifest| manifest["kind"] = json!("Picture"))),
        (
            "of another schema",
            good.with_manifest(|manifest| manifest["schema"] = json!("lethe.dev/manifest/v9")),
        ),
        ("with a field unheard of", good.with_manifest(|manifest| manifest["signature"] = json!("x"))),
        ("with a pickle beside", more("model.pt")),
        ("with a path", more("../../../etc/passwd")),
        (
            "without weights",
            good.with_manifest(|manifest| {
                manifest["files"].as_object_mut().unwrap().remove(Manifest::WEIGHTS);
            }),
        ),
        (
            "larger than memory",
            good.with_manifest(|manifest| {
                manifest["files"][Manifest::WEIGHTS]["bytes"] = json!(1_u64 << 60);
            }),
        ),
        (
            "with a manifest of a megabyte",
            good.with_manifest(|manifest| manifest["kind"] = json!("x".repeat(1 << 20))),
        ),
    ]
}

fn foreign_weights(good: &Files) -> Vec<(&'static str, Files)> {
    let zip = b"PK\x03\x04\x00\x00\x08\x08\x00archive/data.pkl".to_vec();
    let endless = [&u64::MAX.to_le_bytes()[..], &good.weights[8..]].concat();
    let no_json = [&good.weights[..8], b"[", &good.weights[9..]].concat();
    [
        ("empty", Vec::new()),
        ("a torch file", zip),
        ("a pickle", b"\x80\x02}q\x00(X\x05\x00\x00\x00stepsq\x01K\x01u.".to_vec()),
        ("a gzip file", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec()),
        ("text", b"the weights are somewhere else".to_vec()),
        ("with an endless header", endless),
        ("with a header that is no JSON", no_json),
        ("shorter than its header says", good.weights[..good.weights.len() - 4].to_vec()),
        ("longer than its header says", [&good.weights[..], &[0; 4]].concat()),
    ]
    .map(|(what, weights)| (what, good.with_weights(weights)))
    .to_vec()
}

fn other_tensors(good: &Files) -> Vec<(&'static str, Files)> {
    let poisoned = |value: f64| {
        good.with_tensors(|tensors| {
            let floats = |tensor: &&mut Tensor| tensor.1 != Dtype::I64;
            let (_, dtype, _, data) = tensors.iter_mut().find(floats).unwrap();
            match dtype {
                Dtype::F32 => data[..4].copy_from_slice(&(value as f32).to_le_bytes()),
                _ => data[..8].copy_from_slice(&value.to_le_bytes()),
            }
        })
    };
    let extra = ("optimiser".to_owned(), Dtype::F32, vec![1], vec![0; 4]);
    vec![
        ("with a value that is no number", poisoned(f64::NAN)),
        ("with an infinite value", poisoned(f64::NEG_INFINITY)),
        ("with a tensor too many", good.with_tensors(|tensors| tensors.push(extra))),
        ("with a tensor too few", good.with_tensors(|tensors| drop(tensors.remove(0)))),
        ("with a tensor of another name", good.with_tensors(|tensors| tensors[0].0 += "\n")),
        ("with a tensor of another shape", good.with_tensors(|tensors| tensors[0].2.insert(0, 1))),
        (
            "with a tensor of another type",
            good.with_tensors(|tensors| {
                // As many bytes for half as many values, or for twice as many.
                let (_, dtype, shape, data) = &mut tensors[0];
                *dtype = if *dtype == Dtype::F32 { Dtype::I32 } else { Dtype::U64 };
                assert_eq!(data.len(), shape.iter().product::<usize>() * dtype.bitsize() / 8);
            }),
        ),
    ]
}

fn other_models(good: &Files) -> Vec<(&'static str, Files)> {
    let labels = |labels: Vec<String>| good.with_model(|model| model["model"]["labels"] = json!(labels));
    let many = |count: usize| labels((0..count).map(|index| index.to_string()).collect());
    let four = |last: &str| labels(["zero", "one", "two", last].map(str::to_owned).to_vec());
    let image = |side: i64| {
        good.with_model(|model| {
            model["model"]["image"] = json!({"channels": 1, "height": side, "width": side});
        })
    };
    vec![
        ("with no description", good.with_model_bytes(Vec::new())),
        ("with a description that is no JSON", good.with_model_bytes(b"{\"schema\"".to_vec())),
        ("with a description of five megabytes", good.with_model_bytes(vec![b' '; 5 << 20])),
        (
            "described by another schema",
            good.with_model(|model| model["schema"] = json!("lethe.dev/model/v9")),
        ),
        ("described by a field unheard of", good.with_model(|model| model["licence"] = json!("x"))),
        ("without labels", many(0)),
        ("of one label", many(1)),
        ("of five labels", many(5)),
        ("of a thousand labels", many(1000)),
        ("of more labels than a plan may have", many(1025)),
        ("with other labels", four("four")),
        ("with a label twice", four("zero")),
        ("with a label without a name", four("")),
        ("with a label of two lines", four("a\nb")),
        ("with a label of 129 bytes", four(&"x".repeat(129))),
        ("of images without pixels", image(0)),
        ("of images of another size", image(16)),
        ("of images that fill the memory", image(1 << 40)),
        (
            "with a noise level below zero",
            good.with_model(|model| model["model"]["noise"]["sigmaMin"] = json!(-1)),
        ),
        ("of another network", good.with_model(|model| model["model"]["network"]["width"] = json!(24))),
        (
            "of an endless network",
            good.with_model(|model| model["model"]["network"]["width"] = json!(1_u64 << 60)),
        ),
    ]
}
