//! `lint`: manifests checked without a cluster, by the rules of the custom resource definitions and in the words of the API
//! server, and against each other.

mod cross;
mod definitions;
mod rules;
mod schema;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::{
    args::{Format, Lint},
    exit::{Exit, Result},
    files::{self, Text},
    term::{self, Line, Tone},
    write_data, yaml,
};

/// What is wrong with a manifest, or may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub file: String,
    /// From 1; 0 where it is not known.
    pub line: usize,
    pub column: usize,
    pub severity: Severity,
    /// Kind and name of the object, if it says so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The field, as the API server writes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The API server refuses it, or the operator does.
    Error,
    /// It may be meant, and is probably not.
    Warning,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    pub files: usize,
    /// Objects of Lethe's kinds that were checked.
    pub checked: usize,
    /// Objects of other kinds, which are none of our business.
    pub others: usize,
    pub findings: Vec<Finding>,
}

/// # Errors
/// If a file cannot be read.
pub fn run(args: &Lint) -> Result<Exit> {
    let found = lint(&files::read(&args.files, args.recursive)?);
    match args.output.output {
        Format::Text => term::write_lines(&lines(&found))?,
        other => write_data(&found, other)?,
    }
    let least = if args.strict { Severity::Warning } else { Severity::Error };
    let is_wrong = found.findings.iter().any(|finding| finding.severity <= least);
    Ok(if is_wrong { Exit::NotRight } else { Exit::Fine })
}

/// Checks each object by itself, and then all of them together.
pub fn lint(files: &[Text]) -> Findings {
    let mut found = Findings { files: files.len(), ..Findings::default() };
    let mut objects = Vec::new();
    for file in files {
        let documents = match yaml::documents(&file.text) {
            Ok(documents) => documents,
            Err(yaml::Broken { line, column, message }) => {
                let file = file.name.clone();
                found.findings.push(Finding {
                    file,
                    line,
                    column,
                    severity: Severity::Error,
                    object: String::new(),
                    path: String::new(),
                    message,
                });
                continue;
            }
        };
        let is_part = file.text.lines().any(|line| line.trim() == definitions::PART);
        for document in documents {
            match definitions::check(&file.name, document, is_part) {
                definitions::Checked::NotOurs => found.others += 1,
                definitions::Checked::Ours { object, findings } => {
                    found.checked += 1;
                    // What is wrong by itself is not looked at beside others.
                    objects.extend(object.filter(|_| findings.is_empty()));
                    found.findings.extend(findings);
                }
            }
        }
    }
    found.findings.extend(cross::check(&objects));
    found.findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    found
}

fn lines(found: &Findings) -> Vec<Line> {
    let mut lines: Vec<Line> = found.findings.iter().map(line).collect();
    let count = |severity| found.findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let tone = if errors > 0 { Tone::Bad } else { Tone::Good };
    lines.push(Line::of(
        tone,
        format!(
            "{} checked in {}: {}, {}{}",
            counted(found.checked, "object"),
            counted(found.files, "file"),
            counted(errors, "error"),
            counted(warnings, "warning"),
            match found.others {
                0 => String::new(),
                n => format!(" ({} of other kinds not looked at)", counted(n, "object")),
            }
        ),
    ));
    lines
}

fn line(finding: &Finding) -> Line {
    let place = match finding.line {
        0 => format!("{}: ", finding.file),
        line => format!("{}:{line}:{}: ", finding.file, finding.column),
    };
    let (tone, word) = match finding.severity {
        Severity::Error => (Tone::Bad, "error: "),
        Severity::Warning => (Tone::Busy, "warning: "),
    };
    let object = Some(&finding.object).filter(|object| !object.is_empty());
    let path = Some(&finding.path).filter(|path| !path.is_empty());
    Line::of(Tone::Strong, place)
        .and(tone, word)
        .and(Tone::Soft, object.map(|object| format!("{object}: ")).unwrap_or_default())
        .and(Tone::Plain, path.map(|path| format!("{path}: ")).unwrap_or_default())
        .and(Tone::Plain, lethe_api::printable::printable(&finding.message))
        .hanging("    ")
}

fn counted(n: usize, what: &str) -> String {
    let s = if n == 1 { "" } else { "s" };
    format!("{n} {what}{s}")
}
