//! A store with a small prepared model in it, and ways to run the trainer on it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use lethe_api::contract::{
    AuditTask, BaseArtifact, BundleKind, Device, Digest, EvaluateTask, ForgetTask, MADE_AGAIN, Manifest,
    Metrics, Outcome, Override, Plan, PlannedTarget, Precision, PrepareRecord, PrepareTask, Record,
    RecordBody, Samples, Task, TaskKind,
};
use lethe_sfd::{
    Denoiser, ImageShape, MlpConfig, ModelConfig, NoiseConfig, Parametrisation, TeachSettings, Teaching,
    Training, TrainingImages,
};
use lethe_store::{Bundle, Folder, Store, folder_uri};
use tempfile::TempDir;

/// Long enough for a loaded machine; a hang still ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// A store of its own, with everything that `prepare` made in it.
pub(crate) struct World {
    root: TempDir,
    pub(crate) prepared: PrepareRecord,
    /// Digest of the plan that prepared it.
    pub(crate) preparation: Digest,
}

/// How a run of the trainer ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) outcome: Outcome,
    pub(crate) stderr: String,
}

impl World {
    /// A copy of the one store that was prepared, so that no test disturbs another.
    pub(crate) fn new() -> Self {
        static PREPARED: OnceLock<World> = OnceLock::new();
        let original = PREPARED.get_or_init(Self::prepared_anew);
        let root = TempDir::new().unwrap();
        copy(original.path(), root.path());
        Self { root, prepared: original.prepared.clone(), preparation: original.preparation.clone() }
    }

    /// A store that a run of its own prepared.
    pub(crate) fn prepared_anew() -> Self {
        Self::prepared_from(&teacher())
    }

    /// A store that a run of its own prepared from this base.
    pub(crate) fn prepared_from(base: &Bundle) -> Self {
        let (root, plan) = unprepared_from(base);
        let ended = run(root.path(), TaskKind::Prepare, plan.to_json().as_bytes());
        let prepared = preparation(root.path(), &plan, &ended);
        Self { root, prepared, preparation: plan.digest() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub(crate) fn store_uri(&self) -> String {
        folder_uri(&self.store()).unwrap()
    }

    pub(crate) fn file(&self, bundle: &Digest, file: &str) -> PathBuf {
        self.store().join("bundles").join(bundle.hex()).join(file)
    }

    pub(crate) fn scratch(&self, plan: &Digest) -> PathBuf {
        self.store().join("scratch").join(plan.hex())
    }

    /// Names of what the run of this plan has left in its scratch space, sorted.
    pub(crate) fn scratch_files(&self, plan: &Digest) -> Vec<String> {
        let Ok(files) = fs::read_dir(self.scratch(plan)) else { return Vec::new() };
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What a record's curves hold.
    pub(crate) fn curves(&self, digest: &Digest) -> Vec<Metrics> {
        let bytes = fs::read(self.store().join("blobs").join(digest.hex())).unwrap();
        assert_eq!(Digest::of(&bytes), *digest);
        Metrics::parse_lines(&String::from_utf8(bytes).unwrap()).unwrap()
    }

    pub(crate) fn forget(&self, targets: &[(&str, Override)], steps: u32) -> Plan {
        let prepared = &self.prepared;
        self.plan(Task::Forget(ForgetTask {
            teacher: prepared.teacher.clone(),
            baseline: prepared.baseline.clone(),
            distillation: prepared.distillation.clone(),
            judge: prepared.judge.clone(),
            targets: planned(targets),
            kept: kept(targets),
            steps: Some(steps),
            robustness: None,
            reference: None,
            settings: None,
        }))
    }

    pub(crate) fn evaluate(&self, candidate: &Digest, targets: &[(&str, Override)]) -> Plan {
        let prepared = &self.prepared;
        self.plan(Task::Evaluate(EvaluateTask {
            candidate: candidate.clone(),
            baseline: prepared.baseline.clone(),
            judge: prepared.judge.clone(),
            reference: prepared.reference.clone(),
            targets: planned(targets),
            kept: kept(targets),
            samples: Samples { leak: 60, retain_per_label: 20, quality: 90 },
            probes: None,
        }))
    }

    /// An audit of what listens at a local port, which has to serve this.
    pub(crate) fn audit(&self, port: u16, served: &Digest, targets: &[(&str, Override)]) -> Plan {
        self.plan(Task::Audit(AuditTask {
            endpoint: format!("http://127.0.0.1:{port}"),
            model: "digits".into(),
            served: served.clone(),
            baseline: self.prepared.baseline.clone(),
            judge: self.prepared.judge.clone(),
            targets: planned(targets),
            kept: kept(targets),
            samples: 700,
        }))
    }

    pub(crate) fn plan(&self, task: Task) -> Plan {
        plan(self.path(), task)
    }

    pub(crate) fn run(&self, plan: &Plan) -> Ended {
        run(self.path(), plan.task.kind(), plan.to_json().as_bytes())
    }

    /// Says of a plan that was carried out that it is done, with its record as `change` leaves it.
    pub(crate) fn say_done(&self, plan: &Plan, change: impl FnOnce(&mut Record)) {
        self.say_done_with(plan, &plan.digest(), change);
    }

    /// Says of another plan that it is done, with the record that this one left.
    pub(crate) fn say_done_of(&self, from: &Plan, plan: &Plan) {
        let digest = plan.digest();
        self.say_done_with(from, &digest, |record| record.plan = digest.clone());
    }

    fn say_done_with(&self, from: &Plan, of: &Digest, change: impl FnOnce(&mut Record)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = Store::open(&self.store_uri()).unwrap();
        runtime.block_on(async {
            let done = store.scratch(&from.digest()).get("done", 1 << 10).await.unwrap().unwrap();
            let record = String::from_utf8(done).unwrap().parse().unwrap();
            let bytes = store.get_record(&record, Record::MAX_BYTES).await.unwrap();
            let mut record = Record::parse(&bytes, &from.digest()).unwrap();
            change(&mut record);
            let record = store.put_record(serde_json::to_vec(&record).unwrap()).await.unwrap();
            store.scratch(of).put("done", record.as_str().as_bytes()).await.unwrap();
        });
    }

    /// Runs the plan to its end in a pod whose Job was made again.
    pub(crate) fn run_again(&self, plan: &Plan) -> Ended {
        let mut command = command(self.path(), plan.task.kind(), plan.to_json().as_bytes());
        let output = command.env(MADE_AGAIN, "1").output().unwrap();
        ended(self.path(), &plan.digest(), output)
    }

    /// Runs the plan to its end and reads its record.
    pub(crate) fn record(&self, plan: &Plan) -> RecordBody {
        read_record(self.path(), plan, &self.run(plan))
    }

    /// A candidate that has forgotten `targets`, after a handful of steps.
    pub(crate) fn candidate(&self, targets: &[(&str, Override)]) -> Digest {
        match self.record(&self.forget(targets, 3)) {
            RecordBody::Forget(record) => record.candidate,
            other => panic!("not the record of a forgetting: {other:?}"),
        }
    }
}

pub(crate) fn fixed(label: &str) -> Override {
    Override::Fixed { label: label.into() }
}

pub(crate) fn trainer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lethe-trainer"));
    command.env_remove("LETHE_BUNDLE").env_remove("LETHE_STORE").stdin(Stdio::null());
    command
}

/// The command for a plan, which is put into `root`. It listens nowhere.
fn command(root: &Path, kind: TaskKind, plan: &[u8]) -> Command {
    fs::write(root.join("plan.json"), plan).unwrap();
    let mut command = trainer();
    command.args(arguments(root, kind)).arg("--no-port");
    command
}

/// The arguments for a plan that lies in `root`.
pub(crate) fn arguments(root: &Path, kind: TaskKind) -> Vec<String> {
    let in_root = |file: &str| root.join(file).display().to_string();
    let kind = format!("{kind:?}").to_lowercase();
    let (plan, log) = (in_root("plan.json"), in_root("termination-log"));
    [kind.as_str(), "--plan", &plan, "--termination-log", &log].map(str::to_owned).to_vec()
}

pub(crate) fn run(root: &Path, kind: TaskKind, plan: &[u8]) -> Ended {
    let output = command(root, kind, plan).output().unwrap();
    ended(root, &Digest::of(plan), output)
}

pub(crate) fn ended(root: &Path, plan: &Digest, output: Output) -> Ended {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let message = fs::read_to_string(root.join("termination-log"))
        .unwrap_or_else(|error| panic!("no termination message: {error}; {stderr}"));
    let outcome =
        Outcome::parse(&message, plan).unwrap_or_else(|error| panic!("{error}: {message}; {stderr}"));
    Ended { code: output.status.code(), outcome, stderr }
}

/// Starts a command that listens on a port of its own choice, and learns from its log which.
pub(crate) fn start(command: &mut Command) -> (Running, u16) {
    let command = command.args(["--port", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = Running(command.spawn().unwrap());
    let log = BufReader::new(process.0.stderr.take().unwrap());
    let (sender, ports) = mpsc::channel();
    // Reads to the end: nobody may wait for room in the pipe.
    thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some(port) = listening(&line) {
                let _ = sender.send(port);
            }
        }
    });
    let port = ports.recv_timeout(PATIENCE).expect("the log says where it listens");
    (process, port)
}

fn listening(line: &str) -> Option<u16> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = (entry["message"] == "listening").then(|| entry["address"].as_str())??;
    address.rsplit_once(':')?.1.parse().ok()
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The body of GET `path` at a local port: status and text. `None` if nobody listens.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let answer = agent.get(format!("http://127.0.0.1:{port}{path}")).call().ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.into_body().read_to_string().ok()?))
}

/// Ends with the test, whatever happens in it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the end of the process", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        image: ImageShape { channels: 1, height: 8, width: 8 },
        labels: ["zero", "one", "two", "three"].map(str::to_owned).to_vec(),
        noise: NoiseConfig::default(),
        parametrisation: Parametrisation::Edm,
        network: MlpConfig { width: 16, blocks: 1, embedding: 8, frequencies: 4 }.into(),
    }
}

pub(crate) fn description(config: &ModelConfig) -> Vec<u8> {
    serde_json::json!({"schema": "lethe.dev/model/v1", "model": config, "forgotten": []})
        .to_string()
        .into_bytes()
}

/// A teacher that has learnt to draw a bright quarter of the image for each of the four labels.
pub(crate) fn teacher() -> Bundle {
    static TEACHER: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (weights, model) = TEACHER.get_or_init(|| {
        let taught = taught(&tiny());
        (taught.weights().to_vec(), taught.model().to_vec())
    });
    Bundle::new(BundleKind::Teacher, weights.clone(), model.clone()).unwrap()
}

/// A teacher of the same images, whatever its form.
pub(crate) fn taught(config: &ModelConfig) -> Bundle {
    let quarter = |label: usize| {
        (0..64).map(move |pixel| if pixel % 8 / 4 + 2 * (pixel / 32) == label { 0.8 } else { -0.8 })
    };
    let pixels: Vec<f32> = (0..4).flat_map(quarter).collect();
    let images = TrainingImages::new(config, &pixels, &[0, 1, 2, 3]).unwrap();
    let settings =
        TeachSettings { steps: 500, batch: 32, learning_rate: 1e-2, ema_decay: 0.95, ..Default::default() };
    let mut teaching = Teaching::new(config, images, settings, 1, lethe_sfd::Device::Cpu).unwrap();
    while !teaching.done() {
        teaching.advance();
    }
    let weights = teaching.finish().unwrap().to_bytes();
    Bundle::new(BundleKind::Teacher, weights, description(config)).unwrap()
}

/// A teacher with fresh weights: it draws the same of all its labels.
pub(crate) fn untaught() -> Bundle {
    let config = tiny();
    let weights = Denoiser::init(&config, 1, lethe_sfd::Device::Cpu).unwrap().to_bytes();
    Bundle::new(BundleKind::Teacher, weights, description(&config)).unwrap()
}

/// Every bundle in a store either is not there or is as its name says.
pub(crate) fn assert_whole(store: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let opened = Store::open(&folder_uri(store).unwrap()).unwrap();
    for folder in fs::read_dir(store.join("bundles")).unwrap() {
        let folder = folder.unwrap();
        if folder.path().join(Manifest::FILE).exists() {
            let digest = format!("sha256:{}", folder.file_name().to_str().unwrap()).parse().unwrap();
            runtime.block_on(opened.bundle_folder(&digest).read(&digest)).unwrap();
        }
    }
}

/// Writes a bundle to a folder outside of any store.
pub(crate) fn export(bundle: &Bundle, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Folder::open(&folder_uri(folder).unwrap()).unwrap().write(bundle)).unwrap();
}

pub(crate) fn prepare_task(folder: &Path, digest: &Digest) -> Task {
    let base = BaseArtifact { uri: folder_uri(folder).unwrap(), digest: digest.clone() };
    Task::Prepare(PrepareTask { base, steps: Some(2) })
}

pub(crate) fn plan(root: &Path, task: Task) -> Plan {
    Plan {
        schema: Plan::SCHEMA.into(),
        run: "small-7f3a".into(),
        seed: 7,
        device: Device::Auto,
        threads: 1,
        precision: Precision::F32,
        store: folder_uri(&root.join("store")).unwrap(),
        task,
    }
}

/// An empty store, a base model beside it, and the plan to prepare it.
pub(crate) fn unprepared() -> (TempDir, Plan) {
    unprepared_from(&teacher())
}

fn unprepared_from(base: &Bundle) -> (TempDir, Plan) {
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("store")).unwrap();
    export(base, &root.path().join("base"));
    let plan = plan(root.path(), prepare_task(&root.path().join("base"), base.digest()));
    (root, plan)
}

pub(crate) fn preparation(root: &Path, plan: &Plan, ended: &Ended) -> PrepareRecord {
    match read_record(root, plan, ended) {
        RecordBody::Prepare(record) => record,
        other => panic!("not the record of a preparation: {other:?}"),
    }
}

pub(crate) fn read_record(root: &Path, plan: &Plan, ended: &Ended) -> RecordBody {
    assert_eq!(ended.code, Some(0), "{:?}\n{}", ended.outcome, ended.stderr);
    let digest = ended.outcome.record.as_ref().unwrap();
    let bytes = fs::read(root.join("store/records").join(format!("{}.json", digest.hex()))).unwrap();
    assert_eq!(*digest, Digest::of(&bytes));
    Record::parse(&bytes, &plan.digest()).unwrap().body
}

fn planned(targets: &[(&str, Override)]) -> Vec<PlannedTarget> {
    let target = |(label, replacement): &(&str, Override)| PlannedTarget {
        label: (*label).into(),
        replacement: replacement.clone(),
    };
    targets.iter().map(target).collect()
}

/// Every label that is not a target.
fn kept(targets: &[(&str, Override)]) -> Vec<String> {
    tiny().labels.into_iter().filter(|label| targets.iter().all(|(target, _)| target != label)).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}
