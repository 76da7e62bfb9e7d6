//! `lethe-trainer evaluate --probes fast`, the program itself, on models of digits. How well they have learnt makes no
//! difference to how long it takes to measure them: they have hardly been trained.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Bench;
use super::row::Row;
use crate::digits;

/// What it may take.
const LIMIT_SECONDS: f64 = 20.0;
const FORGOTTEN: &str = "3";
const INSTEAD: &str = "5";

/// A store in a temporary directory, and the program that works on it.
struct Store<'a> {
    trainer: &'a Path,
    dir: &'a Path,
    threads: u8,
}

/// # Errors
/// If the trainer fails.
pub fn measure(bench: &Bench<'_>, trainer: &Path) -> Result<Row> {
    let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
    let threads = bench.args.threads.iter().copied().max().unwrap_or(1);
    let store = Store { trainer, dir: dir.path(), threads };
    let prepared = store.prepare(&store.teach()?)?;
    let forgotten = store.record("forget", &task(&prepared, "Forget", json!({ "steps": 5 }))?, &[])?;
    let plan = json!({
        "candidate": forgotten["candidate"],
        // As in examples/policy.yaml.
        "samples": { "leak": 3000, "retainPerLabel": 200, "quality": 13_500 },
    });
    let plan = task(&prepared, "Evaluate", plan)?;
    let teacher = prepared["teacher"].as_str().context("Prepare names no teacher")?;
    let began = Instant::now();
    let found = store.record("evaluate", &plan, &["--probes", "fast", "--teacher", teacher])?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(found["probes"]["attempts"].is_array(), "the record has no probes");
    let mut row = Row::of_pairs("evaluate-fast", vec![seconds], vec![LIMIT_SECONDS], "s", threads);
    row.what = "beside the limit; start and store included".to_owned();
    Ok(row)
}

/// A task on what `Prepare` has made, with some fields of its own.
fn task(prepared: &Value, kind: &str, own: Value) -> Result<Value> {
    let labels = (0..10).map(|digit| digit.to_string()).filter(|label| label != FORGOTTEN);
    let mut task = json!({
        "type": kind,
        "baseline": prepared["baseline"],
        "judge": prepared["judge"],
        "targets": [{ "label": FORGOTTEN, "override": { "strategy": "Fixed", "label": INSTEAD } }],
        "kept": labels.collect::<Vec<_>>(),
    });
    let inputs: &[&str] = if kind == "Forget" { &["teacher", "distillation"] } else { &["reference"] };
    for &input in inputs {
        task[input] = prepared[input].clone();
    }
    let own = own.as_object().context("fields have names")?;
    own.iter().for_each(|(name, value)| task[name] = value.clone());
    Ok(task)
}

impl Store<'_> {
    /// A teacher beside the store: its digest.
    fn teach(&self) -> Result<Value> {
        let (images, report) = (self.dir.join("digits.csv.gz"), self.dir.join("teach.json"));
        fs::write(&images, digits::DIGITS)?;
        let mut teach = Command::new(self.trainer);
        teach.args(["teach", "--device", "cpu", "--steps", "300", "--images"]).arg(&images);
        teach.arg("--out").arg(self.dir.join("base")).arg("--report").arg(&report);
        teach.arg("--threads").arg(self.threads.to_string());
        self.run(&mut teach)?;
        Ok(read(&report)?["digest"].clone())
    }

    fn prepare(&self, base: &Value) -> Result<Value> {
        let uri = self.uri("base");
        let task = json!({ "type": "Prepare", "base": { "uri": uri, "digest": base }, "steps": 20 });
        self.record("prepare", &task, &[])
    }

    /// Carries a task out; the record's body.
    fn record(&self, command: &str, task: &Value, more: &[&str]) -> Result<Value> {
        let plan = json!({
            "schema": "lethe.dev/plan/v1",
            "run": "bench",
            "seed": 1,
            "device": "cpu",
            "threads": self.threads,
            "store": self.uri("store"),
            "task": task,
        });
        fs::create_dir_all(self.dir.join("store"))?;
        let file = self.dir.join("plan.json");
        fs::write(&file, plan.to_string())?;
        self.run(Command::new(self.trainer).args([command, "--no-port", "--plan"]).arg(&file).args(more))?;
        let outcome = read(&self.dir.join("outcome.json"))?;
        let digest = outcome["record"].as_str().context("the trainer left no record")?;
        let hex = digest.rsplit(':').next().unwrap_or(digest);
        Ok(read(&self.dir.join("store/records").join(hex).with_extension("json"))?["body"].clone())
    }

    fn run(&self, command: &mut Command) -> Result<()> {
        command.env("OMP_NUM_THREADS", self.threads.to_string());
        command.arg("--termination-log").arg(self.dir.join("outcome.json"));
        let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?} failed ({}): {}", output.status, said.trim());
        Ok(())
    }

    fn uri(&self, folder: &str) -> String {
        format!("file://{}", self.dir.join(folder).display())
    }
}

fn read(file: &Path) -> Result<Value> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", file.display()))
}
