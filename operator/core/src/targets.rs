//! What is forgotten, what is kept, and what a forgotten label yields instead.

use std::collections::{BTreeMap, BTreeSet};

use lethe_api::{
    contract::{Override, PlannedTarget},
    v1alpha1::{
        DiffusionModelStatus, KnownLabel, LedgerEntry, OverrideSpec, Reason, Strategy, Target,
        UnlearnRequest, UnlearnRequestSpec,
    },
};

/// Most labels that a message names.
const SHOWN: usize = 20;
/// Most neighbours that are named: those further off are disturbed no more than any other label.
const AT_RISK: usize = 5;

/// Why a set of targets makes no sense, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetsError {
    #[error("label {label:?} is not known to the model; it knows {known}")]
    UnknownLabel { label: String, known: String },
    #[error("forgetting {0} would leave the model no label to generate; keep at least one")]
    NothingWouldRemain(String),
    #[error("override {0:?} is itself a target of this request; choose a label that stays")]
    OverrideIsTarget(String),
    #[error("override {0:?} is already forgotten by this model; choose a label that stays")]
    OverrideIsForgotten(String),
    #[error(
        "none of the labels nearest to {0:?} stays; name one with strategy Fixed, or use strategy Random"
    )]
    OverrideUnavailable(String),
}

impl TargetsError {
    pub fn reason(&self) -> Reason {
        match self {
            TargetsError::UnknownLabel { .. } => Reason::UnknownLabel,
            TargetsError::NothingWouldRemain(_) => Reason::NothingWouldRemain,
            TargetsError::OverrideIsTarget(_) => Reason::OverrideIsTarget,
            TargetsError::OverrideIsForgotten(_) => Reason::OverrideIsForgotten,
            TargetsError::OverrideUnavailable(_) => Reason::OverrideUnavailable,
        }
    }
}

/// Forgotten labels and their overrides, in label order.
pub type Forgotten = BTreeMap<String, Override>;

/// What the ledger says is forgotten. The first entry for a label counts; later ones repeat it.
pub fn ledger_targets(ledger: &[LedgerEntry]) -> Forgotten {
    let mut forgotten = Forgotten::new();
    for entry in ledger {
        for label in &entry.targets {
            forgotten.entry(label.clone()).or_insert_with(|| as_override(&entry.replacement));
        }
    }
    forgotten
}

/// Adds a request's targets to what is forgotten already. Targets that are there are left as they are.
pub fn add_request(
    forgotten: &Forgotten,
    request: &UnlearnRequestSpec,
    labels: &[KnownLabel],
) -> Result<Forgotten, TargetsError> {
    let targets: BTreeSet<&str> = request.targets.iter().map(|t| t.label.as_str()).collect();
    for label in targets.iter().copied().chain(request.replacement.label.as_deref()) {
        if !labels.iter().any(|known| known.name == label) {
            return Err(TargetsError::UnknownLabel { label: label.into(), known: some_names(labels) });
        }
    }
    if let Some(label) = request.replacement.label.as_deref() {
        if targets.contains(label) {
            return Err(TargetsError::OverrideIsTarget(label.into()));
        }
        if forgotten.contains_key(label) {
            return Err(TargetsError::OverrideIsForgotten(label.into()));
        }
    }
    let mut union = forgotten.clone();
    for label in &targets {
        union.entry((*label).to_owned()).or_insert_with(|| as_override(&request.replacement));
    }
    if labels.iter().all(|known| union.contains_key(&known.name)) {
        let names = targets.iter().copied().collect::<Vec<_>>().join(", ");
        return Err(TargetsError::NothingWouldRemain(names));
    }
    Ok(union)
}

/// The kept labels that the judge confuses most with a request's targets: of each target the nearest, then of each the
/// next. Known before anything is trained; what the run for it is `planned` to forget is not kept either.
pub fn at_risk(
    request: &UnlearnRequestSpec,
    model: &DiffusionModelStatus,
    planned: &[PlannedTarget],
) -> Vec<String> {
    let forgotten = ledger_targets(&model.ledger);
    let is_target = |label: &str| {
        request.targets.iter().any(|target| target.label == label)
            || planned.iter().any(|target| target.label == label)
    };
    let nearest = |target: &Target| {
        let known = model.labels.iter().find(|known| known.name == target.label);
        let nearest = known.into_iter().flat_map(|known| &known.nearest);
        nearest.filter(|name| !is_target(name) && !forgotten.contains_key(*name)).collect::<Vec<_>>()
    };
    let columns: Vec<_> = request.targets.iter().map(nearest).collect();
    let ranks = columns.iter().map(Vec::len).max().unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for name in (0..ranks).flat_map(|rank| columns.iter().filter_map(move |column| column.get(rank))) {
        if !found.contains(name) && found.len() < AT_RISK {
            found.push((*name).clone());
        }
    }
    found
}

/// Where something else is held to than a request asks for: labels and what they yield, in words. `Nearest` leaves
/// the choice of a label to Lethe, so that any is as asked.
pub fn overruled(request: &UnlearnRequestSpec, held: &Forgotten) -> Option<String> {
    let asked = as_override(&request.replacement);
    let differs = |held: &Override| match (&asked, held) {
        (Override::Nearest, Override::Fixed { .. }) => false,
        (asked, held) => asked != held,
    };
    let yields = |label: &str| {
        Some(match held.get(label).filter(|held| differs(held))? {
            Override::Fixed { label: other } => format!("{label:?} yields {other:?}"),
            Override::Nearest => format!("{label:?} yields what is nearest to it"),
            Override::Random => format!("{label:?} yields any label"),
        })
    };
    let all: Vec<_> = request.targets.iter().filter_map(|target| yields(&target.label)).collect();
    let shown = all[..all.len().min(SHOWN)].join(", ");
    match all.len() {
        0 => None,
        n if n > SHOWN => Some(format!("{shown} and {} more", n - SHOWN)),
        _ => Some(shown),
    }
}

/// The targets of a plan: `Nearest` becomes the nearest kept label, and an override that was itself
/// forgotten later is replaced by its own override, until a kept label is reached.
pub fn resolve(forgotten: &Forgotten, labels: &[KnownLabel]) -> Result<Vec<PlannedTarget>, TargetsError> {
    let nearest_kept = |label: &str| -> Result<Override, TargetsError> {
        let known = labels.iter().find(|known| known.name == label);
        let mut candidates = known.into_iter().flat_map(|known| &known.nearest);
        let kept = candidates.find(|name| !forgotten.contains_key(*name));
        kept.map(|name| Override::Fixed { label: name.clone() })
            .ok_or_else(|| TargetsError::OverrideUnavailable(label.to_owned()))
    };
    let resolve_one = |label: &str| -> Result<Override, TargetsError> {
        let mut at = label;
        // A chain has no more links than there are forgotten labels; a longer one is a circle.
        for _ in 0..=forgotten.len() {
            match &forgotten[at] {
                Override::Random => return Ok(Override::Random),
                Override::Nearest => return nearest_kept(at),
                Override::Fixed { label: next } if forgotten.contains_key(next) => at = next,
                kept @ Override::Fixed { .. } => return Ok(kept.clone()),
            }
        }
        nearest_kept(label)
    };
    forgotten
        .keys()
        .map(|label| Ok(PlannedTarget { label: label.clone(), replacement: resolve_one(label)? }))
        .collect()
}

/// The targets of a plan that makes another base forget everything. What that does not know under its name could not be
/// asked for, and so not be measured: such a base is refused, whether or not it shows the same under another name.
///
/// # Errors
/// With what keeps the base from honouring the ledger, in words.
pub fn of_another_base(forgotten: &Forgotten, labels: &[KnownLabel]) -> Result<Vec<PlannedTarget>, String> {
    let is_known = |name: &str| labels.iter().any(|known| known.name == name);
    let lacks = |(label, replacement): (&String, &Override)| match replacement {
        _ if !is_known(label) => Some(format!("{label:?}, which is forgotten")),
        Override::Fixed { label: other } if !is_known(other) => {
            Some(format!("{other:?}, which {label:?} yields"))
        }
        _ => None,
    };
    let lacking: Vec<_> = forgotten.iter().filter_map(lacks).collect();
    if !lacking.is_empty() {
        let shown = lacking[..lacking.len().min(SHOWN)].join(", ");
        let more = lacking.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(format!("it does not know {shown}{more}"));
    }
    if labels.iter().all(|known| forgotten.contains_key(&known.name)) {
        return Err("nothing would remain of it".into());
    }
    resolve(forgotten, labels).map_err(|error| error.to_string())
}

fn as_override(spec: &OverrideSpec) -> Override {
    match (spec.strategy, &spec.label) {
        (Strategy::Fixed, Some(label)) => Override::Fixed { label: label.clone() },
        // The schema refuses Fixed without a label; nearest is what is least wrong should it slip by.
        (Strategy::Fixed, None) | (Strategy::Nearest, _) => Override::Nearest,
        (Strategy::Random, _) => Override::Random,
    }
}

/// The other way round, for the ledger.
pub fn as_spec(replacement: &Override) -> OverrideSpec {
    match replacement {
        Override::Fixed { label } => OverrideSpec { strategy: Strategy::Fixed, label: Some(label.clone()) },
        Override::Nearest => OverrideSpec { strategy: Strategy::Nearest, label: None },
        Override::Random => OverrideSpec { strategy: Strategy::Random, label: None },
    }
}

/// The first labels, for a message that must stay readable with a thousand of them.
fn some_names(labels: &[KnownLabel]) -> String {
    let shown = labels.iter().take(SHOWN).map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ");
    if labels.len() > SHOWN { format!("{shown} and {} more", labels.len() - SHOWN) } else { shown }
}

/// The targets in a few words: a column of `kubectl get` shows the first item of a list only.
pub(crate) fn summary(request: &UnlearnRequest) -> Option<String> {
    let labels: Vec<&str> = request.spec.targets.iter().map(|target| target.label.as_str()).collect();
    match labels[..] {
        [] => None,
        [one] => Some(one.into()),
        [one, two] => Some(format!("{one}, {two}")),
        [first, ref others @ ..] => Some(format!("{first} and {} more", others.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_api::v1alpha1::ModelRef;

    fn known(names: &[&str]) -> Vec<KnownLabel> {
        let nearest = |name: &str| names.iter().filter(|n| **n != name).map(|n| (*n).into()).collect();
        names.iter().map(|n| KnownLabel { name: (*n).into(), nearest: nearest(n) }).collect()
    }

    fn request(targets: &[&str], strategy: Strategy, label: Option<&str>) -> UnlearnRequestSpec {
        UnlearnRequestSpec {
            model_ref: ModelRef { name: "digits".into() },
            targets: targets.iter().map(|t| Target { label: (*t).into() }).collect(),
            replacement: OverrideSpec { strategy, label: label.map(Into::into) },
            mode: Default::default(),
            requested_by: None,
            data_subject_request: None,
            suspend: false,
        }
    }

    fn forget(pairs: &[(&str, &str)]) -> Forgotten {
        pairs.iter().map(|(t, o)| ((*t).into(), Override::Fixed { label: (*o).into() })).collect()
    }

    fn fixed(label: &str) -> Override {
        Override::Fixed { label: label.into() }
    }

    #[test]
    fn a_label_that_the_model_does_not_know_is_named() {
        let labels = known(&["0", "1", "2"]);
        let error =
            add_request(&Forgotten::new(), &request(&["7"], Strategy::Nearest, None), &labels).unwrap_err();
        assert_eq!(error.reason(), Reason::UnknownLabel);
        assert!(error.to_string().contains("\"7\"") && error.to_string().contains("0, 1, 2"));
        let error = add_request(&Forgotten::new(), &request(&["0"], Strategy::Fixed, Some("9")), &labels);
        assert_eq!(error.unwrap_err().reason(), Reason::UnknownLabel);
    }

    #[test]
    fn an_override_must_stay() {
        let labels = known(&["0", "1", "2"]);
        let in_targets =
            add_request(&Forgotten::new(), &request(&["0", "1"], Strategy::Fixed, Some("1")), &labels);
        assert_eq!(in_targets.unwrap_err().reason(), Reason::OverrideIsTarget);
        let in_ledger =
            add_request(&forget(&[("1", "2")]), &request(&["0"], Strategy::Fixed, Some("1")), &labels);
        assert_eq!(in_ledger.unwrap_err().reason(), Reason::OverrideIsForgotten);
    }

    #[test]
    fn something_must_remain() {
        let labels = known(&["0", "1", "2"]);
        let all = add_request(&forget(&[("1", "2")]), &request(&["0", "2"], Strategy::Random, None), &labels);
        assert_eq!(all.unwrap_err().reason(), Reason::NothingWouldRemain);
    }

    #[test]
    fn an_override_that_is_forgotten_later_hands_on_to_its_own() {
        let labels = known(&["1", "3", "5", "8"]);
        let chain = resolve(&forget(&[("3", "8"), ("8", "1")]), &labels).unwrap();
        assert!(chain.iter().all(|t| t.replacement == fixed("1")), "{chain:?}");
        let circle = resolve(&forget(&[("3", "8"), ("8", "3")]), &labels).unwrap();
        assert!(circle.iter().all(|t| t.replacement == fixed("1")), "{circle:?}");
    }

    #[test]
    fn the_kept_labels_that_are_most_like_the_targets_are_at_risk_the_nearest_first() {
        let nearest = |name: &str, nearest: &[&str]| KnownLabel {
            name: name.into(),
            nearest: nearest.iter().map(|name| (*name).into()).collect(),
        };
        let labels = vec![nearest("3", &["8", "9", "5", "2"]), nearest("7", &["3", "9", "1"])];
        let ledger = vec![LedgerEntry {
            targets: vec!["8".into()],
            replacement: as_spec(&Override::Nearest),
            request: lethe_api::v1alpha1::LedgerRequest { name: "r".into(), uid: "u".into() },
            run: "run".into(),
            digest: lethe_api::Digest::of(b""),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
        }];
        let model = DiffusionModelStatus { labels, ledger, ..Default::default() };
        let found = |targets: &[&str]| at_risk(&request(targets, Strategy::Nearest, None), &model, &[]);
        assert_eq!(found(&["3"]), ["9", "5", "2"], "8 is forgotten");
        assert_eq!(
            found(&["3", "7"]),
            ["9", "5", "1", "2"],
            "each target's nearest come first, and each once"
        );
        let planned = [PlannedTarget { label: "9".into(), replacement: Override::Nearest }];
        let shared = at_risk(&request(&["3"], Strategy::Nearest, None), &model, &planned);
        assert_eq!(shared, ["5", "2"], "9 is forgotten by the same run");
        assert!(found(&["4"]).is_empty(), "of an unknown label nothing is known");
    }

    #[test]
    fn an_override_other_than_the_one_that_holds_is_named() {
        let mut held = forget(&[("3", "8"), ("5", "6")]);
        held.insert("7".into(), Override::Random);
        let says = |strategy, label| overruled(&request(&["3", "5", "7", "9"], strategy, label), &held);
        let one = says(Strategy::Fixed, Some("8")).unwrap();
        assert_eq!(one, "\"5\" yields \"6\", \"7\" yields any label", "3 yields what was asked, 9 is new");
        assert_eq!(says(Strategy::Nearest, None).unwrap(), "\"7\" yields any label");
        assert_eq!(overruled(&request(&["9"], Strategy::Random, None), &held), None);
        let labels: Vec<String> = (0..30).map(|label| label.to_string()).collect();
        let many: Vec<&str> = labels.iter().map(String::as_str).collect();
        let held = many.iter().map(|label| ((*label).into(), Override::Random)).collect();
        let long = overruled(&request(&many, Strategy::Nearest, None), &held).unwrap();
        assert!(long.ends_with("and 10 more"), "{long}");
    }

    #[test]
    fn nearest_skips_what_is_forgotten() {
        let labels = known(&["0", "1", "2"]);
        let mut forgotten = forget(&[("0", "2")]);
        forgotten.insert("1".into(), Override::Nearest);
        let resolved = resolve(&forgotten, &labels).unwrap();
        assert_eq!(resolved[1].replacement, fixed("2"));
        let mut blind = labels.clone();
        blind[1].nearest = vec!["0".into()];
        assert_eq!(resolve(&forgotten, &blind).unwrap_err().reason(), Reason::OverrideUnavailable);
    }
}
