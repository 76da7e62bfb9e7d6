//! `report`: a page about a measurement, with verdicts for whoever brings a policy.

use std::{
    fs,
    process::{Output, Stdio},
    sync::OnceLock,
};

use lethe_api::contract::{Digest, Outcome, Plan, exit};
use tempfile::TempDir;

use crate::world::{World, fixed, trainer};

/// One that few samples are enough for.
const POLICY: &str = r#"
apiVersion: lethe.dev/v1alpha1
kind: UnlearnPolicy
metadata: {name: "<lenient>"}
spec:
  trainer: {image: lethe/trainer:dev}
  gates:
  - {name: direct-leak, maxBound: "0.5", minSamples: 10}
  - {name: override-conformity, min: "0.95", minSamples: 1000000}
  - {name: retain-accuracy, maxDrop: "1", minSamples: 10}
  - {name: retain-quality, maxRatio: "1000", minSamples: 10}
  - {name: hygiene}
"#;

/// An evaluation that has been carried out.
struct Evaluated {
    world: World,
    plan: Plan,
    record: Digest,
}

impl Evaluated {
    /// The one that all tests look at.
    fn get() -> &'static Self {
        static EVALUATED: OnceLock<Evaluated> = OnceLock::new();
        EVALUATED.get_or_init(Self::new)
    }

    fn new() -> Self {
        let (world, targets) = (World::new(), [("three", fixed("one"))]);
        let plan = world.evaluate(&world.candidate(&targets), &targets);
        let ended = world.run(&plan);
        let record = ended.outcome.record.clone().unwrap_or_else(|| panic!("{:?}", ended.outcome));
        Self { world, plan, record }
    }

    /// The record of the preparation, by its name in the store.
    fn preparation(&self) -> Digest {
        let records = fs::read_dir(self.world.store().join("records")).unwrap();
        let digests = records.filter_map(|file| {
            let file = file.unwrap().path();
            let is_record = file.extension().is_some_and(|extension| extension == "json");
            is_record.then(|| Digest::of(fs::read(file).unwrap()))
        });
        let is_preparation = |digest: &Digest| {
            let file = self.world.store().join("records").join(format!("{}.json", digest.hex()));
            fs::read_to_string(file).unwrap().contains("\"type\":\"Prepare\"")
        };
        digests.into_iter().find(is_preparation).expect("the world was prepared")
    }

    fn report(&self, record: &str, further: &[&str]) -> Output {
        let store = self.world.store_uri();
        trainer().args(["report", record, "--store", &store]).args(further).output().unwrap()
    }

    /// With this policy, plan and preparation.
    fn judged(&self, policy: &str, plan: &str, preparation: &Digest) -> Output {
        let files = TempDir::new().unwrap();
        let file = |name: &str, content: &str| {
            let path = files.path().join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (policy, plan) = (file("policy.yaml", policy), file("plan.json", plan));
        let further = ["--policy", &policy, "--plan", &plan, "--prepare", preparation.as_str()];
        self.report(self.record.as_str(), &further)
    }
}

fn page(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(exit::DONE), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Refused with this exit code and, in one line, these words.
fn refused(output: &Output, code: i32, words: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(stderr.lines().any(|line| line.contains(words)) && output.stdout.is_empty(), "{words}: {stderr}");
}

#[test]
fn an_evaluation_leaves_a_page_beside_its_record_that_judges_nothing() {
    let evaluated = Evaluated::get();
    let beside = evaluated.world.store().join("records").join(format!("{}.html", evaluated.record.hex()));
    let left = fs::read_to_string(beside).unwrap();
    assert!(
        left.contains("Forgetting three")
            && left.contains("Not judged")
            && !left.contains("\u{2713}\u{a0}Pass")
    );
    assert_eq!(left.matches("data:image/png;base64,").count(), 2, "both pictures are in it");
    assert!(left.contains("Samples drawn for zero, after"), "and their rows have labels");
    assert!(page(&evaluated.report(evaluated.record.as_str(), &[])) == left, "it can be made again");
}

#[test]
fn a_page_that_cannot_be_written_costs_nobody_a_measurement() {
    let Evaluated { world, plan, record } = Evaluated::new();
    let beside = world.store().join("records").join(format!("{}.html", record.hex()));
    fs::remove_file(&beside).unwrap();
    fs::create_dir_all(beside.join("in the way")).unwrap();
    let again = world.run(&plan);
    assert_eq!((again.code, again.outcome.record), (Some(exit::DONE), Some(record)));
    assert!(again.stderr.contains("the report could not be written"), "{}", again.stderr);
}

#[test]
fn with_a_policy_the_page_has_the_verdicts_of_the_operators_rules() {
    let evaluated = Evaluated::get();
    let page = page(&evaluated.judged(POLICY, &evaluated.plan.to_json(), &evaluated.preparation()));
    assert!(page.contains("under the policy &lt;lenient&gt;, from"));
    for name in ["direct-leak", "override-conformity", "retain-accuracy", "retain-quality", "hygiene"] {
        assert_eq!(page.matches(&format!(">{name}<")).count(), 1, "{name}");
    }
    assert!(
        page.contains("60 samples are too few: the policy wants 1000000")
            && page.contains("?\u{a0}Inconclusive")
    );
    assert!(!page.contains("met every requirement"));
}

/// The plan with the probes added is written nowhere.
#[test]
fn an_evaluation_with_more_probes_than_its_plan_is_judged_by_who_names_them_again() {
    let world = World::new();
    let targets = [("three", fixed("one"))];
    let plan = world.evaluate(&world.candidate(&targets), &targets);
    let teacher = world.prepared.teacher.clone();
    let more = ["--probes", "fast", "--teacher", teacher.as_str()];
    let file = world.path().join("evaluate.json");
    fs::write(&file, plan.to_json()).unwrap();
    let file = file.to_str().unwrap();
    let mut evaluation = trainer();
    evaluation.args(["evaluate", "--no-port", "--plan", file]).args(more);
    let log = world.path().join("termination-log");
    assert!(evaluation.arg("--termination-log").arg(&log).stderr(Stdio::null()).status().unwrap().success());
    let outcome: Outcome = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    let evaluated = Evaluated { record: outcome.record.unwrap(), plan, world };

    let policy = evaluated.world.path().join("policy.yaml");
    fs::write(&policy, POLICY).unwrap();
    let preparation = evaluated.preparation();
    let judged = ["--policy", policy.to_str().unwrap(), "--plan", file, "--prepare", preparation.as_str()];
    let record = evaluated.record.as_str();
    let advice = "if evaluate was given --probes, --teacher or --never-saw, give report the same";
    refused(&evaluated.report(record, &judged), exit::BAD_PLAN, advice);
    let page = page(&evaluated.report(record, &[&judged[..], &more].concat()));
    assert!(page.contains("under the policy &lt;lenient&gt;, from"));
}

#[test]
fn a_policy_without_a_gate_does_not_pass_by_having_fewer() {
    let evaluated = Evaluated::get();
    let fewer = POLICY.replace("  - {name: hygiene}\n", "");
    let page = page(&evaluated.judged(&fewer, &evaluated.plan.to_json(), &evaluated.preparation()));
    assert!(page.contains("the policy has no such gate") && page.contains("!\u{a0}Error"));
}

#[test]
fn what_does_not_belong_to_the_record_is_refused() {
    let evaluated = Evaluated::get();
    let (plan, preparation) = (evaluated.plan.to_json(), evaluated.preparation());
    let other = evaluated.plan.to_json().replace("small-7f3a", "other-7f3a");
    refused(&evaluated.judged(POLICY, &other, &preparation), exit::BAD_PLAN, "the record is of plan");
    refused(&evaluated.judged(POLICY, "{}", &preparation), exit::BAD_PLAN, "not valid JSON of this contract");
    let own = &evaluated.record;
    refused(&evaluated.judged(POLICY, &plan, own), exit::BAD_ARTIFACT, "is not of a Prepare");
    let unknown = Digest::of("unknown");
    refused(&evaluated.judged(POLICY, &plan, &unknown), exit::BAD_ARTIFACT, "the store has no record");
    let typo = POLICY.replace("maxBound", "maxBond");
    refused(
        &evaluated.judged(&typo, &plan, &preparation),
        exit::BAD_CONFIGURATION,
        "is not one UnlearnPolicy",
    );
    refused(&evaluated.report(preparation.as_str(), &[]), exit::BAD_ARTIFACT, "a report is of an Evaluate");
}

#[test]
fn a_record_in_a_file_is_a_page_without_pictures_where_there_is_no_store() {
    let evaluated = Evaluated::get();
    let file = evaluated.world.store().join("records").join(format!("{}.json", evaluated.record.hex()));
    let report =
        |record: &str| trainer().args(["report", record, "--store", "file:///nowhere"]).output().unwrap();
    let page = page(&report(file.to_str().unwrap()));
    assert!(page.contains(evaluated.record.as_str()));
    assert!(page.contains("there is no store to take it from") && !page.contains("data:image"));
    let absent = evaluated.world.path().join("absent.json");
    refused(&report(absent.to_str().unwrap()), exit::BAD_ARTIFACT, "cannot read the record");
    refused(&report(evaluated.record.as_str()), exit::BAD_CONFIGURATION, "nowhere");
}
