//! What a person would look at first when something failed.

use super::kubectl::Kubectl;
use super::site::RELEASE;

/// Characters of a line: what matters stands at its beginning.
const WIDTH: usize = 240;

/// The namespace's objects, its last events, and the last lines of whatever does not run well.
pub fn of(kubectl: &Kubectl<'_>) -> String {
    let operator = format!("deploy/{RELEASE}");
    let mut parts = vec![
        part(kubectl, &["get", "diffusionmodels,unlearnrequests,unlearnruns,jobs,pods", "-o", "wide"], 40),
        part(kubectl, &["get", "events", "--sort-by=.lastTimestamp"], 12),
        part(kubectl, &["logs", &operator, "--tail=8"], 8),
    ];
    for pod in unwell(kubectl) {
        parts.push(part(kubectl, &["logs", &pod, "--tail=6"], 6));
    }
    parts.join("\n")
}

/// Pods that are neither running well nor done.
fn unwell(kubectl: &Kubectl<'_>) -> Vec<String> {
    let pods = kubectl.json(&["get", "pods"]).unwrap_or_default();
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let well = |pod: &serde_json::Value| {
        pod["status"]["phase"] == "Succeeded" || pod["status"]["containerStatuses"][0]["ready"] == true
    };
    let name = |pod: &serde_json::Value| pod["metadata"]["name"].as_str().map(str::to_owned);
    pods.iter().filter(|pod| !well(pod)).filter_map(name).take(3).collect()
}

fn part(kubectl: &Kubectl<'_>, words: &[&str], most: usize) -> String {
    let said = kubectl.text(words).unwrap_or_else(|error| format!("{error:#}"));
    let lines: Vec<&str> = said.lines().collect();
    let lines = &lines[lines.len().saturating_sub(most)..];
    let cut = |line: &&str| format!("  | {}", line.chars().take(WIDTH).collect::<String>());
    let lines = lines.iter().map(cut).collect::<Vec<_>>().join("\n");
    format!("kubectl -n {} {}\n{lines}", kubectl.namespace, words.join(" "))
}
