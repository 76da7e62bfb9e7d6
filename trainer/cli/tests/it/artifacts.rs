//! Bad artifacts: refused with 65 and one line that says what is wrong.

use std::fs;

use lethe_api::contract::{BundleKind, Digest, Failure, Manifest, RecordBody, exit};
use lethe_sfd::{Denoiser, Device, MlpConfig};
use lethe_store::Bundle;
use tempfile::TempDir;

use crate::world::{
    Ended, World, description, export, fixed, plan, prepare_task, run, teacher, tiny, untaught,
};

/// Prepares from a base folder that `spoil` had its way with.
fn prepare_from(bundle: &Bundle, spoil: impl FnOnce(&std::path::Path)) -> Ended {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("store")).unwrap();
    let base = root.path().join("base");
    export(bundle, &base);
    spoil(&base);
    let plan = plan(root.path(), prepare_task(&base, bundle.digest()));
    run(root.path(), plan.task.kind(), plan.to_json().as_bytes())
}

fn assert_refused(ended: &Ended, word: &str) {
    assert_eq!(ended.code, Some(exit::BAD_ARTIFACT), "{:?}\n{}", ended.outcome, ended.stderr);
    assert_eq!(ended.outcome.failure, Some(Failure::BadArtifact));
    let message = ended.outcome.message.as_deref().unwrap();
    assert!(message.contains(word) && !message.contains('\n'), "{message}");
}

#[test]
fn a_base_with_another_digest_is_refused() {
    let ended = prepare_from(&teacher(), |base| {
        let manifest = fs::read_to_string(base.join(Manifest::FILE)).unwrap();
        fs::write(base.join(Manifest::FILE), manifest + " ").unwrap();
    });
    assert_refused(&ended, "correct the digest, or restore the file");
}

#[test]
fn a_truncated_base_is_refused() {
    let ended = prepare_from(&teacher(), |base| {
        let weights = base.join(Manifest::WEIGHTS);
        let bytes = fs::read(&weights).unwrap();
        fs::write(weights, &bytes[..bytes.len() / 2]).unwrap();
    });
    assert_refused(&ended, "bytes");
}

#[test]
fn a_base_that_is_not_there_is_refused() {
    let ended = prepare_from(&teacher(), |base| fs::remove_dir_all(base).unwrap());
    assert_refused(&ended, "does not exist");
}

#[test]
fn a_base_with_a_weight_that_is_not_a_number_is_refused() {
    let mut weights = teacher().weights().to_vec();
    let end = weights.len();
    weights[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let bundle = Bundle::new(BundleKind::Teacher, weights, description(&tiny())).unwrap();
    assert_refused(&prepare_from(&bundle, |_| {}), "not finite");
}

#[test]
fn a_base_with_a_label_that_the_judge_does_not_recognise_is_refused() {
    let ended = prepare_from(&untaught(), |_| {});
    assert_refused(&ended, "of 1500 teacher samples of label \"");
}

#[test]
fn a_base_of_another_shape_is_refused() {
    let mut wider = tiny();
    wider.network = MlpConfig { width: 24, blocks: 1, embedding: 8, frequencies: 4 }.into();
    let bundle = Bundle::new(BundleKind::Teacher, teacher().weights().to_vec(), description(&wider)).unwrap();
    assert_refused(&prepare_from(&bundle, |_| {}), "shape");
}

#[test]
fn a_base_with_a_tensor_too_many_or_too_few_is_refused() {
    let mut deeper = tiny();
    deeper.network = MlpConfig { width: 16, blocks: 2, embedding: 8, frequencies: 4 }.into();
    let deep = Denoiser::init(&deeper, 1, Device::Cpu).unwrap().to_bytes();
    let too_many = Bundle::new(BundleKind::Teacher, deep, description(&tiny())).unwrap();
    assert_refused(&prepare_from(&too_many, |_| {}), "does not belong here");
    let all = teacher();
    let all = safetensors::SafeTensors::deserialize(all.weights()).unwrap();
    let few = safetensors::serialize(all.tensors().into_iter().skip(1), None).unwrap();
    let too_few = Bundle::new(BundleKind::Teacher, few, description(&tiny())).unwrap();
    assert_refused(&prepare_from(&too_few, |_| {}), "missing");
}

#[test]
fn a_pickle_is_refused_by_name() {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("store")).unwrap();
    let base = root.path().join("base");
    export(&teacher(), &base);
    let pickle = b"PK\x03\x04\x00\x00archive/data.pkl";
    let mut manifest: Manifest = serde_json::from_slice(teacher().manifest()).unwrap();
    let weights = manifest.files.get_mut(Manifest::WEIGHTS).unwrap();
    (weights.digest, weights.bytes) = (Digest::of(pickle), pickle.len() as u64);
    let manifest = serde_json::to_vec(&manifest).unwrap();
    fs::write(base.join(Manifest::WEIGHTS), pickle).unwrap();
    fs::write(base.join(Manifest::FILE), &manifest).unwrap();
    let plan = plan(root.path(), prepare_task(&base, &Digest::of(&manifest)));
    let ended = run(root.path(), plan.task.kind(), plan.to_json().as_bytes());
    assert_refused(&ended, "pickle");
    assert!(ended.outcome.message.unwrap().contains("safetensors"));
}

#[test]
fn a_model_json_that_is_none_is_refused() {
    let bundle = Bundle::new(BundleKind::Teacher, teacher().weights().to_vec(), b"{}".to_vec()).unwrap();
    assert_refused(&prepare_from(&bundle, |_| {}), "model.json");
}

#[test]
fn a_bundle_in_the_wrong_place_is_refused() {
    let mut world = World::new();
    let baseline = world.prepared.baseline.clone();
    std::mem::swap(&mut world.prepared.baseline, &mut world.prepared.distillation);
    let ended = world.run(&world.forget(&[("three", fixed("one"))], 3));
    assert_refused(&ended, "a Generator bundle is needed here");
    world.prepared.baseline = baseline;
    world.prepared.distillation = Digest::of(b"nothing");
    assert_refused(&world.run(&world.forget(&[("three", fixed("one"))], 3)), "does not exist");
}

#[test]
fn forgetting_does_not_start_from_a_model_that_has_forgotten() {
    let mut world = World::new();
    world.prepared.baseline = world.candidate(&[("three", fixed("one"))]);
    let targets = [("two", fixed("one"))];
    assert_refused(&world.run(&world.forget(&targets, 3)), "already forgotten");
    let candidate = world.prepared.baseline.clone();
    assert_refused(&world.run(&world.evaluate(&candidate, &targets)), "no control");
}

#[test]
fn a_byte_that_flipped_in_the_store_is_found() {
    let world = World::new();
    for bundle in [&world.prepared.teacher, &world.prepared.baseline, &world.prepared.distillation] {
        let path = world.file(bundle, Manifest::WEIGHTS);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        bad[good.len() - 10] ^= 1;
        fs::write(&path, bad).unwrap();
        assert_refused(&world.run(&world.forget(&[("three", fixed("one"))], 3)), "corrupt");
        fs::write(&path, good).unwrap();
    }
}

/// The checks of a record by name, and whether they passed.
fn hygiene(
    world: &World,
    candidate: &Digest,
    targets: &[(&str, lethe_api::contract::Override)],
) -> Vec<String> {
    let RecordBody::Evaluate(record) = world.record(&world.evaluate(candidate, targets)) else {
        panic!("not the record of an evaluation")
    };
    record.hygiene.into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[test]
fn whatever_travels_with_a_candidate_fails_its_hygiene() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let candidate = world.candidate(&targets);
    assert!(hygiene(&world, &candidate, &targets).is_empty());

    fs::write(world.file(&candidate, "optimizer.safetensors"), "psi").unwrap();
    assert_eq!(hygiene(&world, &candidate, &targets), ["only-known-files"]);
    fs::remove_file(world.file(&candidate, "optimizer.safetensors")).unwrap();

    assert_eq!(hygiene(&world, &candidate, &[("three", fixed("two"))]), ["forgets-the-plan"]);
    let baseline = world.prepared.baseline.clone();
    assert_eq!(hygiene(&world, &baseline, &targets), ["not-the-baseline", "forgets-the-plan"]);
}

#[test]
fn weights_hidden_in_the_header_fail_the_hygiene() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let candidate = world.candidate(&targets);
    let (weights, model) = (
        fs::read(world.file(&candidate, Manifest::WEIGHTS)),
        fs::read(world.file(&candidate, Manifest::MODEL)),
    );
    let (weights, model) = (weights.unwrap(), model.unwrap());
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let hidden = std::collections::HashMap::from([("note".to_owned(), "psi".repeat(1000))]);
    let smuggler = safetensors::serialize(tensors.tensors(), Some(hidden)).unwrap();
    let bundle = Bundle::new(BundleKind::Generator, smuggler, model).unwrap();
    export(&bundle, &world.store().join("bundles").join(bundle.digest().hex()));
    assert_eq!(hygiene(&world, bundle.digest(), &targets), ["nothing-but-the-architecture"]);
}
