//! The server and what asks it.

use std::fs;

use lethe_api::contract::{Digest, Manifest, RecordBody, exit};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::world::{Running, World, fixed, get, start, trainer, until};

pub(crate) struct Server {
    process: Running,
    port: u16,
}

impl Server {
    fn start(world: &World, bundle: &str) -> Self {
        Self::start_with(world, bundle, &[])
    }

    fn start_with(world: &World, bundle: &str, flags: &[&str]) -> Self {
        let (process, port) = start(
            trainer()
                .args(["serve", "--name", "digits", "--threads", "1", "--store", &world.store_uri()])
                .args(["--bundle", bundle])
                .args(flags),
        );
        let server = Self { process, port };
        until("the server to live", || get(port, "/v2/health/live").filter(|(status, _)| *status == 200));
        server
    }

    pub(crate) fn ready(world: &World, bundle: &Digest) -> Self {
        let server = Self::start(world, bundle.as_str());
        until("the server to be ready", || {
            server.get("/v2/health/ready").filter(|(status, _)| *status == 200)
        });
        server
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.port, path)
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).unwrap().1).unwrap()
    }

    fn post(&self, body: &str) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let path = format!("http://127.0.0.1:{}/v2/models/digits/infer", self.port);
        let answer = agent.post(path).send(body).unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.into_body().read_to_string().unwrap()).unwrap())
    }

    /// Pixels of the images of these labels and seeds.
    pub(crate) fn infer(&self, labels: &[&str], seeds: &[u64]) -> Vec<f64> {
        let (status, answer) = self.post(&request(labels, seeds).to_string());
        assert_eq!(status, 200, "{answer}");
        let output = &answer["outputs"][0];
        assert_eq!(output["name"], "image");
        assert_eq!(output["datatype"], "FP32");
        assert_eq!(output["shape"], json!([seeds.len(), 1, 8, 8]));
        output["data"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    }

    /// Why it is not ready.
    fn refusal(&self, word: &str) -> String {
        until("a refusal", || {
            let (status, body) = self.get("/v2/health/ready")?;
            assert_eq!(status, 503, "{body}");
            body.contains(word).then_some(body)
        })
    }
}

fn request(labels: &[&str], seeds: &[u64]) -> Value {
    json!({"id": "42", "inputs": [
        {"name": "label", "shape": [labels.len()], "datatype": "BYTES", "data": labels},
        {"name": "seed", "shape": [seeds.len()], "datatype": "INT64", "data": seeds},
    ]})
}

#[test]
fn a_served_candidate_says_what_it_is_and_what_it_has_forgotten() {
    let world = World::new();
    let candidate = world.candidate(&[("three", fixed("one"))]);
    let server = Server::ready(&world, &candidate);
    let model = server.json("/v2/models/digits");
    assert_eq!(model["digest"], candidate.as_str());
    assert_eq!(model["name"], "digits");
    assert_eq!(
        model["forgotten"],
        json!([{"label": "three", "override": {"strategy": "Fixed", "label": "one"}}])
    );
    assert_eq!(model["outputs"][0]["shape"], json!([-1, 1, 8, 8]));
    assert_eq!(server.json("/v2/models/digits/ready")["ready"], true);
    assert_eq!(server.json("/v2")["name"], "lethe-trainer");
    let (status, page) = server.get("/").unwrap();
    assert_eq!(status, 200);
    for word in [candidate.as_str(), "forgotten, shows one", "/samples/two.png"] {
        assert!(page.contains(word), "{word} is not on the page:\n{page}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing is loaded from elsewhere");
}

/// What is refused and why, `serve/proof.rs` tests.
#[test]
fn a_server_with_trusted_keys_serves_nothing_that_they_have_not_signed() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let (private, public) = (folder.path().join("key.pem"), folder.path().join("key.pub.pem"));
    let openssl = |args: &[&str], files: [&std::path::Path; 2]| {
        let mut openssl = std::process::Command::new("openssl");
        assert!(openssl.args(args).arg(files[0]).arg("-out").arg(files[1]).status().unwrap().success());
    };
    let mut make = std::process::Command::new("openssl");
    assert!(
        make.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&private).status().unwrap().success()
    );
    openssl(&["pkey", "-pubout", "-in"], [&private, &public]);
    let flags = ["--trusted-keys", public.to_str().unwrap()];
    let server = Server::start_with(&world, world.prepared.baseline.as_str(), &flags);
    let refusal = server.refusal("no trusted key has signed that it passed");
    assert!(refusal.contains("there is no evidence about it"), "{refusal}");
}

#[test]
fn an_image_depends_on_its_label_and_seed_only() {
    let world = World::new();
    let server = Server::ready(&world, &world.prepared.baseline);
    let together = server.infer(&["zero", "three", "one"], &[5, 6, 7]);
    let alone = server.infer(&["three"], &[6]);
    assert_eq!(together.len(), 3 * 64);
    assert_eq!(together[64..128], alone[..]);
    // At every place in a block and beyond it, to the bit.
    let seeds: Vec<u64> = (0..70).collect();
    let many = server.infer(&["three"; 70], &seeds);
    let reversed = server.infer(&["three"; 70], &seeds.iter().rev().copied().collect::<Vec<_>>());
    let images = reversed.chunks(64).rev().flatten().copied().collect::<Vec<_>>();
    assert_eq!(many, images);
    assert_eq!(many[6 * 64..][..64], alone[..]);
    assert_ne!(alone, server.infer(&["three"], &[7]));
    assert_ne!(alone, server.infer(&["two"], &[6]));
    assert!(alone.iter().all(|pixel| (-1.0..=1.0).contains(pixel)));
}

#[test]
fn a_bad_request_gets_the_protocols_error() {
    let world = World::new();
    let server = Server::ready(&world, &world.prepared.baseline);
    let good = request(&["one"], &[1]).to_string();
    let (status, answer) = server.post(&good);
    assert_eq!((status, &answer["id"]), (200, &json!("42")));
    assert_eq!(answer["model_version"], world.prepared.baseline.as_str());
    let many = vec!["one"; 1025];
    let cases = [
        "{".to_owned(),
        "{}".to_owned(),
        good.replace("\"one\"", "\"nine\""),
        good.replace("[1]", "[1,1]"),
        request(&many, &vec![1; 1025]).to_string(),
    ];
    for body in cases {
        let (status, answer) = server.post(&body);
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()));
    }
    assert_eq!(server.post(&" ".repeat((1 << 20) + 1)).0, 413);
    for path in ["/v2/models/other", "/nothing", "/samples/nine.png"] {
        let (status, body) = server.get(path).unwrap();
        assert_eq!(status, 404);
        assert!(body.contains("error"), "{body}");
    }
}

#[test]
fn samples_are_a_picture_and_the_metrics_count_them() {
    let world = World::new();
    let server = Server::ready(&world, &world.prepared.baseline);
    let url = format!("http://127.0.0.1:{}/samples/one.png?seed=3&n=5", server.port);
    let png = ureq::get(url).call().unwrap().into_body().read_to_vec().unwrap();
    let info = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    assert_eq!((info.info().width, info.info().height), (5 * (48 + 4) + 4, 48 + 4 + 4));
    server.get("/made/up/path").unwrap();
    let (_, metrics) = server.get("/metrics").unwrap();
    for line in [
        "lethe_server_images_total 5",
        "lethe_server_ready 1",
        "lethe_server_requests_total{endpoint=\"/samples/{file}\",status=\"200\"} 1",
        "lethe_server_requests_total{endpoint=\"other\",status=\"404\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(!metrics.contains("made"), "a path that a client made up is no label");
}

#[test]
fn only_an_intact_generator_is_served() {
    let world = World::new();
    for bundle in [&world.prepared.teacher, &world.prepared.distillation, &world.prepared.judge] {
        let server = Server::start(&world, bundle.as_str());
        server.refusal("a Generator bundle is needed here");
        assert_eq!(server.get("/v2/models/digits").unwrap().0, 503);
    }
    let baseline = &world.prepared.baseline;
    let path = world.file(baseline, Manifest::WEIGHTS);
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&path, bad).unwrap();
    let server = Server::start(&world, baseline.as_str());
    server.refusal("corrupt");
    // A store that was repaired is found so, without a new pod.
    fs::write(&path, good).unwrap();
    until("the server to be ready", || server.get("/v2/health/ready").filter(|(status, _)| *status == 200));
}

#[test]
fn without_a_bundle_the_server_lives_and_says_what_to_do() {
    let world = World::new();
    let mut server = Server::start(&world, "");
    let reason = server.refusal("no bundle to serve");
    assert!(reason.contains("lethe.dev/bundle"), "{reason}");
    let (status, page) = server.get("/").unwrap();
    assert!(status == 503 && page.contains("lethe.dev/bundle"), "{page}");
    kill_process(Pid::from_child(&server.process.0), Signal::TERM).unwrap();
    assert_eq!(server.process.wait().code(), Some(exit::DONE), "SIGTERM ends it in peace");
}

#[test]
fn a_probe_judges_what_the_live_server_draws() {
    let world = World::new();
    let baseline = &world.prepared.baseline;
    let server = Server::ready(&world, baseline);
    let log = world.path().join("probe.json");
    let output = trainer()
        .args(["probe", "--name", "digits", "--samples", "700", "--threads", "1"])
        .args(["--endpoint", &format!("http://127.0.0.1:{}", server.port), "--store", &world.store_uri()])
        .args(["--judge", world.prepared.judge.as_str(), "--label", "two"])
        .arg("--termination-log")
        .arg(&log)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report, serde_json::from_str::<Value>(&fs::read_to_string(log).unwrap()).unwrap());
    assert_eq!((&report["n"], &report["label"]), (&json!(700), &json!("two")));
    assert_eq!(report["digest"], baseline.as_str());
    assert!(report["hits"].as_u64().unwrap() <= 700 && report["imagesPerSecond"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_audit_asks_the_live_server_and_records_what_the_judge_saw() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    // The baseline goes on showing what it should have forgotten.
    let server = Server::ready(&world, &world.prepared.baseline);
    let plan = world.audit(server.port, &world.prepared.baseline, &targets);
    let RecordBody::Audit(record) = world.record(&plan) else { panic!("not an audit") };
    assert_eq!(record.served, world.prepared.baseline);
    let [measured] = &record.targets[..] else { panic!("{record:?}") };
    assert_eq!((measured.label.as_str(), measured.leak.n, measured.control.n), ("three", 700, 300));
    // The same model, live and in the pod: as much of the label in both, as far as chance goes.
    let share = |hits: u64, n: u64| hits as f64 / n as f64;
    let (live, control) = (share(measured.leak.hits, 700), share(measured.control.hits, 300));
    assert!((live - control).abs() < 0.15, "live {live}, control {control}");
    assert_eq!(measured.unlabelled, None, "this server takes no request without a label");
    assert_eq!(record.kept.n, 600);
    let again = world.record(&plan);
    assert_eq!(again, RecordBody::Audit(record), "the same server gives the same record");
}

#[test]
fn an_audit_of_another_bundle_than_the_served_one_measures_nothing() {
    let world = World::new();
    let server = Server::ready(&world, &world.prepared.baseline);
    let plan = world.audit(server.port, &Digest::of(b"another"), &[("three", fixed("one"))]);
    let ended = world.run(&plan);
    assert_eq!(ended.code, Some(exit::TRY_AGAIN));
    let message = ended.outcome.message.unwrap_or_default();
    assert!(message.contains("does not serve"), "{message}");
}

#[test]
fn show_writes_what_a_digest_names() {
    let world = World::new();
    let show = |arguments: &[&str]| {
        trainer().args(["show", "--store", &world.store_uri()]).args(arguments).output().unwrap()
    };
    let baseline = &world.prepared.baseline;
    let manifest = show(&[baseline.as_str()]).stdout;
    assert_eq!(Digest::of(&manifest), *baseline);
    let model = show(&[baseline.as_str(), "--file", "model.json"]).stdout;
    assert_eq!(model, fs::read(world.file(baseline, Manifest::MODEL)).unwrap());
    let record = fs::read_dir(world.store().join("records")).unwrap().next().unwrap().unwrap().path();
    let digest = format!("sha256:{}", record.file_stem().unwrap().to_str().unwrap());
    assert_eq!(show(&[&digest]).stdout, fs::read(record).unwrap());
    assert_eq!(show(&[Digest::of(b"nothing").as_str()]).status.code(), Some(exit::BAD_ARTIFACT));
}
