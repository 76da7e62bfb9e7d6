//! `verify`: what a run, a request or a model claims, held against the store. Nothing is asked of a cluster, and nothing is
//! believed that can be computed anew.

mod claims;
mod log;
mod run;
mod signatures;
#[cfg(test)]
mod tests;

use kube::ResourceExt;
use lethe_api::v1alpha1::{DiffusionModel, UnlearnRequest, UnlearnRun};
use lethe_evidence::TrustedKeys;
use lethe_store::Store;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    args::{Format, Verify},
    exit::{Exit, Result, Trouble},
    files::{self, Text},
    term::{self, Line, Tone},
    write_data, yaml,
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The object that claims it.
    pub subject: String,
    /// What was compared with what.
    pub what: String,
    pub outcome: Outcome,
    /// What was found, where it does not hold or was not looked at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    Holds,
    Broken,
    /// Nothing is known about it. It is neither good nor bad.
    NotChecked,
}

/// What files hold.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    pub runs: Vec<UnlearnRun>,
    pub requests: Vec<UnlearnRequest>,
    pub models: Vec<DiffusionModel>,
}

/// What is noted while one object is looked at.
pub(crate) struct Notes<'a> {
    subject: String,
    checks: &'a mut Vec<Check>,
}

impl Notes<'_> {
    fn note(&mut self, what: impl Into<String>, outcome: Outcome, detail: impl Into<String>) {
        let (subject, what, detail) = (self.subject.clone(), what.into(), detail.into());
        self.checks.push(Check { subject, what, outcome, detail });
    }

    /// Whether it holds, and if not, why.
    fn that(&mut self, what: impl Into<String>, holds: std::result::Result<(), String>) -> bool {
        let is_so = holds.is_ok();
        let outcome = if is_so { Outcome::Holds } else { Outcome::Broken };
        self.note(what, outcome, holds.err().unwrap_or_default());
        is_so
    }

    /// That two things are the same.
    fn same<T: PartialEq + std::fmt::Display>(
        &mut self,
        what: impl Into<String>,
        claimed: &T,
        found: &T,
    ) -> bool {
        let differs = || format!("claimed {claimed}, found {found}");
        self.that(what, if claimed == found { Ok(()) } else { Err(differs()) })
    }

    fn not_checked(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.note(what, Outcome::NotChecked, why);
    }
}

/// # Errors
/// If a file or the store cannot be read.
pub async fn run(args: &Verify) -> Result<Exit> {
    let exported = match args.files.is_empty() {
        true => Exported::default(),
        false => read(&files::read(&args.files, false)?)?,
    };
    let unreachable = |error: &dyn std::fmt::Display| Trouble::unreachable(error.to_string());
    let trusted = args.trusted_keys.as_deref().map(TrustedKeys::load).transpose();
    let trusted = trusted.map_err(|error| unreachable(&error))?;
    let mut checks = match &args.store {
        Some(uri) => {
            let store = Store::open(uri).map_err(|error| unreachable(&error))?;
            check(&exported, &store, trusted.as_ref()).await
        }
        None => Vec::new(),
    };
    if let (Some(uri), Some(trusted)) = (&args.log, &trusted) {
        let kept = log::Kept { uri, origin: &args.origin, trusted, since: args.since.as_deref() };
        log::check(&kept, &exported, &mut checks).await?;
    }
    if checks.is_empty() {
        return Err(Trouble::unreachable(
            "these files hold no UnlearnRun, UnlearnRequest or DiffusionModel: there is nothing to verify",
        ));
    }
    match args.output.output {
        Format::Text => term::write_lines(&lines(&checks))?,
        other => write_data(&checks, other)?,
    }
    let is_broken = checks.iter().any(|check| check.outcome == Outcome::Broken);
    Ok(if is_broken { Exit::NotRight } else { Exit::Fine })
}

/// Everything that is claimed, and with trusted keys who has signed it.
pub async fn check(exported: &Exported, store: &Store, trusted: Option<&TrustedKeys>) -> Vec<Check> {
    let mut checks = Vec::new();
    for one in &exported.runs {
        let subject = format!("run {}", one.name_any());
        let notes = &mut Notes { subject, checks: &mut checks };
        run::check(one, store, notes).await;
        signatures::run(one, store, trusted, notes).await;
    }
    for one in &exported.requests {
        let subject = format!("request {}", one.name_any());
        claims::request(one, exported, &mut Notes { subject, checks: &mut checks });
    }
    for one in &exported.models {
        let subject = format!("model {}", one.name_any());
        let notes = &mut Notes { subject, checks: &mut checks };
        claims::model(one, exported, store, notes).await;
        signatures::model(one, store, trusted, notes).await;
    }
    checks
}

/// The objects in files that claim something.
///
/// # Errors
/// If one is not of its kind, or a file is not YAML.
pub fn read(texts: &[Text]) -> Result<Exported> {
    let mut exported = Exported::default();
    for Text { name, text } in texts {
        let documents = yaml::documents(text).map_err(|yaml::Broken { line, column, message }| {
            Trouble::unreachable(format!("{name}:{line}:{column}: {message}"))
        })?;
        documents.iter().try_for_each(|document| take(name, &document.json(), &mut exported))?;
    }
    Ok(exported)
}

fn take(file: &str, object: &Value, exported: &mut Exported) -> Result<()> {
    fn typed<T: DeserializeOwned>(file: &str, object: &Value) -> Result<T> {
        serde_json::from_value(object.clone())
            .map_err(|error| Trouble::not_right(format!("{file}: {}: {error}", object["kind"])))
    }
    let is_ours = object["apiVersion"].as_str().is_some_and(|version| version.starts_with("lethe.dev/"));
    match object["kind"].as_str().filter(|_| is_ours) {
        Some("UnlearnRun") => exported.runs.push(typed(file, object)?),
        Some("UnlearnRequest") => exported.requests.push(typed(file, object)?),
        Some("DiffusionModel") => exported.models.push(typed(file, object)?),
        _ => {}
    }
    Ok(())
}

fn lines(checks: &[Check]) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut subject = "";
    for check in checks {
        if check.subject != subject {
            subject = &check.subject;
            lines.push(Line::of(Tone::Strong, subject));
        }
        let (tone, sign) = match check.outcome {
            Outcome::Holds => (Tone::Good, "\u{2713}"),
            Outcome::Broken => (Tone::Bad, "\u{2717}"),
            Outcome::NotChecked => (Tone::Soft, "-"),
        };
        let detail = Some(&check.detail).filter(|detail| !detail.is_empty());
        let detail = detail.map(|detail| format!(": {}", lethe_api::printable::printable(detail)));
        let text_tone = if check.outcome == Outcome::NotChecked { Tone::Soft } else { Tone::Plain };
        lines.push(
            Line::of(Tone::Plain, "  ")
                .and(tone, sign)
                .and(text_tone, format!(" {}", lethe_api::printable::printable(&check.what)))
                .and(tone, detail.unwrap_or_default())
                .hanging("    "),
        );
    }
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let (holds, broken, open) = (count(Outcome::Holds), count(Outcome::Broken), count(Outcome::NotChecked));
    let (tone, verdict) =
        if broken == 0 { (Tone::Good, "all of it fits") } else { (Tone::Bad, "NOT all of it fits") };
    lines.push(Line::of(tone, format!("{verdict}: {holds} hold, {broken} do not, {open} not checked")));
    lines
}
