use std::collections::BTreeMap;

use lethe_api::contract::{
    Attempt, Budget, Fidelity, FidelityMeasurement, HygieneCheck, LabelMeasurement, NeighbourMeasurement,
    ProbeLevel, ProbeName, ProbeRecord, ProbeTask, Quality, RecordBody, Sighting, TargetMeasurement,
};

use super::*;
use crate::picture::tests::png;

mod drawn;

const HOSTILE: &str = "<script>alert('\"&\")</script>";

fn digest(name: &str) -> Digest {
    Digest::of(name)
}

/// What was measured when `target` had to be forgotten and "9" to stay.
fn measured(target: &str) -> EvaluateRecord {
    let count = |hits| Count { hits, n: 3000 };
    EvaluateRecord {
        candidate: digest("candidate"),
        baseline: digest("baseline"),
        judge: digest("judge"),
        reference: digest("reference"),
        targets: vec![TargetMeasurement {
            label: target.into(),
            leak: count(2),
            override_hits: count(2980),
            most_common: count(2980),
            control: count(2990),
            base_rate: count(3),
        }],
        retain: vec![LabelMeasurement { label: "9".into(), candidate: count(2970), baseline: count(2985) }],
        quality: Quality { candidate: 0.9, baseline: 0.7, floor: 0.25, n: 3600 },
        hygiene: HygieneCheck::REQUIRED
            .map(|name| HygieneCheck { name: name.into(), passed: true, detail: "as it should be".into() })
            .into(),
        probes: None,
        before: digest("before"),
        after: digest("after"),
        pictured: vec![target.into(), "9".into()],
    }
}

fn attempt(probe: ProbeName, steps: u64, target: &str) -> Attempt {
    let seen = |hits, inside| Sighting { hits, inside, n: 500 };
    Attempt {
        probe,
        attempt: format!("{steps} steps"),
        target: target.into(),
        seeds: vec![7],
        budget: Budget { shots: 20, steps, restarts: 0 },
        candidate: seen(3 * steps / 2, steps),
        control: seen(500, 400),
        never_saw: Some(seen(steps, steps / 2)),
    }
}

/// Everything that an evaluation of level attack has.
fn attacked(target: &str) -> ProbeRecord {
    let others = ProbeName::ALL.into_iter().filter(|probe| *probe != ProbeName::Relearning);
    let relearning = [50, 100, 200].map(|steps| attempt(ProbeName::Relearning, steps, target));
    let found = Fidelity { precision: Count { hits: 140, n: 150 }, recall: Count { hits: 120, n: 150 } };
    ProbeRecord {
        attacker: Some(digest("attacker")),
        asked: ProbeTask {
            level: ProbeLevel::Attack,
            teacher: digest("teacher"),
            never_saw: Some(digest("never saw")),
        },
        attempts: others.map(|probe| attempt(probe, 10, target)).chain(relearning).collect(),
        neighbours: vec![NeighbourMeasurement {
            target: target.into(),
            neighbour: measured(target).retain[0].clone(),
        }],
        fidelity: vec![FidelityMeasurement {
            target: Some(target.into()),
            candidate: found,
            baseline: found,
        }],
    }
}

fn result(name: GateName, verdict: Verdict, message: Option<&str>) -> GateResult {
    GateResult {
        name,
        target: (name == GateName::DirectLeak).then(|| "3".to_owned()),
        value: Some("0.0007".into()),
        bound: None,
        threshold: Some("0.005".into()),
        hits: None,
        n: Some(3000),
        base_rate: None,
        verdict,
        message: message.map(str::to_owned),
    }
}

fn all_pass() -> Vec<GateResult> {
    GateName::REQUIRED.map(|name| result(name, Verdict::Pass, None)).into()
}

/// A training of three looks.
fn training(name: &str) -> Vec<Metrics> {
    let line = |step: u64| Metrics {
        schema: Metrics::SCHEMA.into(),
        stage: "forget".into(),
        step,
        total: 1000,
        images: 64 * step,
        losses: [(format!("{name} (remain)"), 0.5), (format!("{name} (forget)"), 1.0 / step as f64)].into(),
        looks: [("leak".into(), 0.6 - 0.001 * step as f64), ("distance".into(), 1.2)].into(),
        ..Metrics::default()
    };
    [100, 300, 500].map(line).into()
}

/// The page about a record with this body, judged like this.
fn page_of(
    body: &EvaluateRecord,
    results: Option<Vec<GateResult>>,
    pictures: Result<Vec<u8>, String>,
) -> String {
    trained_page(body, results, pictures, Ok(training("generator")))
}

fn trained_page(
    body: &EvaluateRecord,
    results: Option<Vec<GateResult>>,
    pictures: Result<Vec<u8>, String>,
    training: Result<Vec<Metrics>, String>,
) -> String {
    let record = Record {
        schema: Record::SCHEMA.into(),
        run: "digits-7f3a".into(),
        plan: digest("plan"),
        seed: 7,
        trainer: "lethe-trainer 0.1.0".into(),
        body: RecordBody::Evaluate(body.clone()),
    };
    let ruling = results.map(|results| Ruling {
        by: "nobody & no one".into(),
        policy: Some(("<strict>".into(), digest("policy"))),
        results,
    });
    read(&html(&Evaluation {
        record: &record,
        measured: body,
        digest: &digest("record"),
        ruling,
        before: pictures.clone(),
        after: pictures,
        training,
    }))
}

fn pictures() -> Result<Vec<u8>, String> {
    Ok(png(100, 80))
}

/// As it reads, however its lines break.
fn read(page: &str) -> String {
    page.replace('\u{a0}', " ")
}

fn count(page: &str, what: &str) -> usize {
    page.matches(what).count()
}

#[test]
fn every_gate_of_the_ruling_appears_once_with_its_verdict() {
    let mut results = all_pass();
    results[1].verdict = Verdict::Inconclusive;
    results[3].verdict = Verdict::Error;
    let page = page_of(&measured("3"), Some(results), pictures());
    for name in GateName::REQUIRED {
        assert_eq!(count(&page, &format!(">{name}<")), 1, "{name}");
    }
    assert_eq!((count(&page, "\u{2713} Pass"), count(&page, "? Inconclusive<")), (3, 1));
    assert_eq!(count(&page, "! Error<"), 2, "in the table, and as the verdict over all");
    assert!(
        page.contains("3 of 5 gates passed")
            && page.contains("nobody &amp; no one under the policy &lt;strict&gt;")
    );
}

#[test]
fn a_gate_on_what_probes_found_is_in_the_table_if_the_policy_has_it() {
    let probes = GateName::PROBES.map(|name| result(name, Verdict::Pass, None));
    let mut results: Vec<_> = all_pass().into_iter().chain(probes).collect();
    results[11] = result(GateName::Relearning, Verdict::Fail, Some("\"100 steps\": 450 of 500 samples"));
    let page = page_of(&measured("3"), Some(results), pictures());
    for name in GateName::PROBES {
        assert_eq!(count(&page, &format!(">{name}<")), 1, "{name}");
    }
    assert!(page.contains("12 of 13 gates passed") && page.contains("100 steps&quot;: 450 of 500 samples"));
    assert!(page.contains("does NOT meet the requirements") && !page.contains("met every requirement"));
    let plain = page_of(&measured("3"), Some(all_pass()), pictures());
    assert_eq!(count(&plain, ">embedding-inversion<"), 0, "a policy without the gate has no row of it");
}

/// The label is rare where it is asked for in one step, and there in many.
#[test]
fn a_model_that_leaks_another_way_claims_nothing_and_is_not_green() {
    let mut body = measured("3");
    let mut probes = attacked("3");
    let many = probes.attempts.iter_mut().find(|one| one.probe == ProbeName::MultistepLeak).unwrap();
    many.candidate = Sighting { hits: 155, inside: 100, n: 500 };
    many.budget.steps = 18;
    body.probes = Some(probes);
    let mut results = all_pass();
    let found = "155 of 500 images (31.0 %) show \u{201c}3\u{201d} when it is asked for and the image is made in 18 steps";
    results.push(result(GateName::MultistepLeak, Verdict::Fail, None));
    for results in [Some(results), None] {
        let is_judged = results.is_some();
        let page = page_of(&body, results, pictures());
        let told = page.find(&format!("The worst that sampling found: {found}")).unwrap();
        let observed = page.find("Of 3,000 images that were asked for as").unwrap();
        assert!(told < observed && !page.contains("The claim is"));
        assert!(
            page.contains("is not enough to call it forgotten") && page.contains("Nothing of what was to be")
        );
        assert!(page.contains(">31.0 %<"), "it is among the first numbers");
        let why = "What failed: it shows what it should have forgotten when an image is made in many steps instead of one.";
        assert_eq!(page.contains(why), is_judged);
        let summary = &page[..page.find("In plain words").unwrap()];
        assert!(!summary.contains("class=\"good\""), "{summary}");
    }
}

#[test]
fn every_attempt_has_its_number_of_images_and_the_one_of_the_gate_says_why_it_differs() {
    let mut body = measured("3");
    let mut probes = attacked("3");
    probes.attempts[0].budget = Budget::default();
    let grid = probes.attempts.iter_mut().find(|one| one.probe == ProbeName::StochasticLeak).unwrap();
    grid.budget = Budget { shots: 0, steps: 18, restarts: 9 };
    body.probes = Some(probes);
    let page = page_of(&body, None, pictures());
    let every = page.split_once("Every attempt").unwrap().1;
    assert!(every.contains("sampling alone") && every.contains("18 steps, 9 settings"));
    assert_eq!(count(every, "those of the gate direct-leak, which saw 2 of 3,000"), 1);
    assert!(count(every, ">500<") >= body.probes.unwrap().attempts.len());
}

#[test]
fn a_gate_that_failed_is_shown_as_failed_everywhere() {
    let mut results = all_pass();
    results[0] = result(GateName::DirectLeak, Verdict::Fail, Some("41 of 1000 samples"));
    let page = page_of(&measured("3"), Some(results), pictures());
    assert_eq!(count(&page, "\u{2717} Fail<"), 2, "in the table, and as the verdict over all");
    assert!(page.contains("41 of 1000 samples") && page.contains("does NOT meet the requirements"));
    assert!(!page.contains("met every requirement") && !page.contains("The claim is"));
    assert!(page.contains("up to 0.21 % of the images may show one: this is not called forgotten"));
    assert!(
        page.contains("What failed: it shows what it should have forgotten when it is asked for it by name.")
    );
}

#[test]
fn without_a_policy_nothing_is_shown_as_passed() {
    let page = page_of(&measured("3"), None, pictures());
    assert!(page.contains("Not judged") && page.contains("not been judged: no policy was given"));
    assert!(!page.contains("\u{2713} Pass") && !page.contains("met every requirement"));
    for name in GateName::REQUIRED {
        assert_eq!(count(&page, &format!(">{name}<")), 1, "{name} is named as not judged");
    }
    assert!(page.contains("\u{2264} 0.21 %"), "the bound is there all the same");
}

#[test]
fn no_verdicts_at_all_are_not_a_pass() {
    let page = page_of(&measured("3"), Some(vec![]), pictures());
    assert!(page.contains("nothing has passed") && page.contains("! Error"));
    assert!(!page.contains("\u{2713} Pass"));
}

#[test]
fn a_judge_that_does_not_see_the_label_claims_nothing() {
    let mut blind = measured("3");
    blind.targets[0].control = Count { hits: 1200, n: 3000 };
    let page = page_of(&blind, None, pictures());
    assert!(page.contains("nothing follows from this") && page.contains("recognised only 1,200 of 3,000"));
    assert!(!page.contains("The claim is") && page.contains("Nothing of what was to be forgotten"));
}

#[test]
fn the_claim_is_of_what_was_observed_and_never_that_something_is_gone() {
    let mut body = measured("3");
    body.probes = Some(attacked("3"));
    let page = page_of(&body, Some(all_pass()), pictures());
    assert!(page.contains(
        "at most 0.21 % of the images that are asked for as \u{201c}3\u{201d} show one, with 95 % confidence, under this probe"
    ));
    assert!(page.contains(
        "At most 0.21 % of the images that are asked for as \u{201c}3\u{201d} show one (2 of 3,000 did"
    ));
    assert!(page.contains("is not a statement that the model holds no trace"));
    for word in ["removed", "erased", "deleted", "guarantee", "impossible"] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn attacks_are_told_with_what_they_do_to_a_model_that_never_saw_the_label() {
    let mut body = measured("3");
    body.probes = Some(attacked("3"));
    let page = page_of(&body, Some(all_pass()), pictures());
    assert!(page.contains(
        "brought it back in up to 40.0 % of the images (80.0 % before; 20.0 % for a model that never saw it)"
    ));
    assert!(
        page.contains("Images that are back: judged. candidate: 15.0 % at 50 training steps, 60.0 % at 200")
    );
    assert!(page.contains("never saw it: 10.0 % at 50"), "the reference has a curve");
    assert_eq!(count(&page, "<strong>Missing: </strong>"), 0);
}

#[test]
fn an_attack_that_fools_the_judge_in_the_control_alone_cannot_tell() {
    let mut body = measured("3");
    let mut probes = attacked("3");
    let fooled = |hits| Sighting { hits, inside: 0, n: 500 };
    for attempt in probes.attempts.iter_mut().filter(|one| one.probe == ProbeName::EmbeddingInversion) {
        (attempt.candidate, attempt.control) = (fooled(480), fooled(490));
    }
    body.probes = Some(probes);
    let page = page_of(&body, Some(all_pass()), pictures());
    assert_eq!(count(&page, "this attempt cannot tell"), 1);
}

#[test]
fn samplers_of_many_steps_are_no_attacks() {
    let mut body = measured("3");
    let mut probes = attacked("3");
    probes.asked.level = ProbeLevel::Full;
    let full = [
        ProbeName::DirectLeak,
        ProbeName::OtherDoorLeak,
        ProbeName::MultistepLeak,
        ProbeName::StochasticLeak,
    ];
    probes.attempts.retain(|attempt| full.contains(&attempt.probe));
    body.probes = Some(probes);
    let page = page_of(&body, Some(all_pass()), pictures());
    assert!(page.contains("Attacks on the weights were not tried for this record."));
}

#[test]
fn what_the_record_lacks_is_said_to_be_missing() {
    let bare = EvaluateRecord { targets: vec![], retain: vec![], hygiene: vec![], ..measured("3") };
    let page = page_of(&bare, None, Err("the store has no such blob".into()));
    for what in [
        "the picture of the baseline",
        "the picture of the candidate",
        "the store has no such blob",
        "verdicts",
        "measurements at forgotten labels",
        "measurements at kept labels",
        "probes",
        "checks of the candidate",
    ] {
        assert!(page.contains(what), "{what}");
    }
    assert!(page.contains("names no label that was to be forgotten"));
}

#[test]
fn probes_that_the_level_promises_and_the_record_lacks_are_missing() {
    let mut body = measured("3");
    let mut probes = attacked("3");
    probes.attempts.retain(|attempt| attempt.probe != ProbeName::SeedSearch);
    for attempt in &mut probes.attempts {
        attempt.never_saw = None;
    }
    body.probes = Some(probes.clone());
    let page = page_of(&body, None, pictures());
    assert!(page.contains("seed search of 3, though the plan asked for it"));
    assert!(page.contains("a model that never saw the label, to compare with"));
    assert!(page.contains("with a model that never saw it was not measured"));
    probes.asked.level = ProbeLevel::Fast;
    body.probes = Some(probes);
    assert!(page_of(&body, None, pictures()).contains("probes of level fast only"));
}

#[test]
fn an_attempt_that_finds_nothing_in_the_control_either_cannot_tell() {
    let mut body = measured("3");
    let mut probes = attacked("3");
    (probes.attempts[0].control.hits, probes.attempts[0].candidate.hits) = (0, 0);
    // Found in the candidate alone: that tells something.
    probes.attempts[1].control.hits = 0;
    body.probes = Some(probes);
    assert_eq!(count(&page_of(&body, None, pictures()), "this attempt cannot tell"), 1);
}

#[test]
fn everything_that_a_number_rests_on_is_named() {
    let body = EvaluateRecord { probes: Some(attacked("3")), ..measured("3") };
    let page = page_of(&body, Some(all_pass()), pictures());
    let evidence = page.split("Evidence").last().unwrap();
    for name in [
        "record",
        "plan",
        "candidate",
        "baseline",
        "judge",
        "reference",
        "before",
        "after",
        "teacher",
        "attacker",
        "never saw",
        "policy",
    ] {
        assert!(evidence.contains(digest(name).as_str()), "{name} is not named");
    }
    assert!(evidence.contains("<dt>seed</dt><dd>7</dd>"), "{evidence}");
}

#[test]
fn nothing_of_an_artifact_is_taken_for_html() {
    let mut body = measured(HOSTILE);
    body.retain[0].label = HOSTILE.into();
    body.hygiene[0].detail = HOSTILE.into();
    body.hygiene[1].name = HOSTILE.into();
    body.probes = Some(attacked(HOSTILE));
    for attempt in &mut body.probes.as_mut().unwrap().attempts {
        attempt.attempt = HOSTILE.into();
    }
    let mut results = all_pass();
    results[0] = GateResult {
        target: Some(HOSTILE.into()),
        bound: Some(HOSTILE.into()),
        ..result(GateName::DirectLeak, Verdict::Fail, Some(HOSTILE))
    };
    let page = trained_page(&body, Some(results), Err(HOSTILE.into()), Ok(training(HOSTILE)));
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;alert('&quot;&amp;&quot;)&lt;/script&gt;"));
    // No attribute is left open: every quote that is text is written as an entity.
    let tags = page.split('<').skip(1).filter_map(|part| part.split_once('>')).map(|(tag, _)| tag);
    assert!(
        tags.filter(|tag| !tag.starts_with("style"))
            .all(|tag| { tag.matches('"').count() % 2 == 0 && tag.matches(" class=").count() <= 1 })
    );
}

#[test]
fn the_page_loads_nothing_and_runs_nothing() {
    let mut body = measured("3");
    body.probes = Some(attacked("3"));
    let page = page_of(&body, Some(all_pass()), pictures());
    for loader in ["<link", "<script", "@import", "url(", "http:", "https:", "<iframe", "onload"] {
        assert!(!page.contains(loader), "{loader}");
    }
    assert!(page.contains("default-src 'none'"));
    let sources = page.split(" href=\"").skip(1).chain(page.split(" src=\"").skip(1));
    assert!(
        sources
            .into_iter()
            .all(|source| source.starts_with('#') || source.starts_with("data:image/png;base64,"))
    );
}

#[test]
fn everything_that_cannot_be_seen_is_described() {
    let mut body = measured("3");
    body.probes = Some(attacked("3"));
    let page = page_of(&body, Some(all_pass()), pictures());
    let pictures = page.split("<svg").skip(1).map(|part| part.split_once('>').unwrap().0);
    assert!(
        pictures.into_iter().all(|tag| tag.contains("aria-label=\"") || tag.contains("aria-hidden=\"true\""))
    );
    assert!(page.contains("<html lang=\"en\">") && !page.contains("<img"));
}

#[test]
fn a_record_of_a_thousand_labels_is_a_page() {
    let mut body = measured("3");
    let label = |index: usize| format!("label {index}");
    body.targets =
        (0..500).map(|i| TargetMeasurement { label: label(i), ..body.targets[0].clone() }).collect();
    body.retain =
        (500..1000).map(|i| LabelMeasurement { label: label(i), ..body.retain[0].clone() }).collect();
    body.pictured = (0..64).map(label).collect();
    let page = page_of(&body, None, Ok(png(100, 640)));
    assert!(page.contains("label 0, label 1, label 2, label 3, label 4 and 495 more"));
    assert!(page.contains("rows of 936 more labels") && page.contains("The 497 other labels"));
    assert!(page.contains(">label 999<"), "the tables have all of them");
}
