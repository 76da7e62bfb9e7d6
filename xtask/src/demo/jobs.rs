//! Jobs that the demo starts itself: followed until their pod has said its last words.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::interrupt;
use super::kubectl::Kubectl;
use super::timeline::Timeline;

const POLL: Duration = Duration::from_secs(1);
/// The trainer writes where it stands every ten seconds.
const READ_LOG: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Waits for the Job and returns its pod's termination message.
///
/// # Errors
/// If the Job fails, cannot start, or takes too long.
pub fn finish(kubectl: &Kubectl<'_>, timeline: &Timeline, job: &str) -> Result<String> {
    let deadline = Instant::now() + LIMIT;
    let mut read = Instant::now();
    loop {
        interrupt::check()?;
        match state(kubectl, job)? {
            State::Running if read.elapsed() < READ_LOG => {}
            State::Running => {
                timeline.live(&format!("{job}: {}", progress(kubectl, job)));
                read = Instant::now();
            }
            State::Succeeded(message) => return Ok(message),
            State::Failed(why) => bail!("Job {job} failed: {why}\n{}", last_lines(kubectl, job)),
            State::Waiting(why) => timeline.live(&format!("{job}: {why}")),
        }
        if Instant::now() > deadline {
            bail!("Job {job} does not end within {} min\n{}", LIMIT.as_secs() / 60, last_lines(kubectl, job));
        }
        sleep(POLL);
    }
}

/// The last words of the pod of a Job that has ended: those that succeeded come last.
///
/// # Errors
/// If there is no such pod any more, or it said nothing.
pub fn message(kubectl: &Kubectl<'_>, job: &str) -> Result<String> {
    match state(kubectl, job)? {
        State::Succeeded(message) => Ok(message),
        State::Failed(why) | State::Waiting(why) => bail!("Job {job} has no result: {why}"),
        State::Running => bail!("Job {job} has no result yet"),
    }
}

enum State {
    Waiting(String),
    Running,
    Succeeded(String),
    Failed(String),
}

fn state(kubectl: &Kubectl<'_>, job: &str) -> Result<State> {
    let selector = format!("job-name={job}");
    let pods = kubectl.json(&["get", "pods", "-l", &selector])?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    if let Some(pod) = pods.iter().find(|pod| pod["status"]["phase"] == "Succeeded") {
        let message = terminated(pod)["message"].as_str();
        return Ok(State::Succeeded(message.context("its pod ended without a word")?.trim().to_owned()));
    }
    match pods.iter().find(|pod| pod["status"]["phase"] != "Failed").map(obstacle) {
        Some(None) => return Ok(State::Running),
        Some(Some((reason, message))) if is_final(&reason) => {
            return Ok(State::Failed(format!("{reason}: {message}")));
        }
        Some(Some((reason, message))) => return Ok(State::Waiting(format!("{reason} {message}"))),
        None => {}
    }
    let found = kubectl.json(&["get", "job", job])?;
    let said = pods.iter().filter_map(|pod| terminated(pod)["message"].as_str()).next_back();
    let said = said.unwrap_or("no pod yet").trim();
    Ok(match failure(&found) {
        Some(why) => State::Failed(format!("{why}; {said}")),
        None => State::Waiting(said.to_owned()),
    })
}

/// Why the Job was given up.
fn failure(job: &Value) -> Option<String> {
    let conditions = job["status"]["conditions"].as_array()?;
    let failed = conditions.iter().find(|c| c["type"] == "Failed" && c["status"] == "True")?;
    Some(failed["message"].as_str().unwrap_or("no reason given").to_owned())
}

/// What keeps a pod from running: reason and message.
fn obstacle(pod: &Value) -> Option<(String, String)> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let unscheduled = conditions.into_iter().find(|c| c["type"] == "PodScheduled" && c["status"] == "False");
    if let Some(condition) = unscheduled {
        return Some((text(condition, "reason"), text(condition, "message")));
    }
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    waiting["reason"].is_string().then(|| (text(waiting, "reason"), text(waiting, "message")))
}

/// Reasons that waiting does not cure here.
fn is_final(reason: &str) -> bool {
    ["ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"]
        .contains(&reason)
}

fn terminated(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]["terminated"]
}

/// Where the trainer stands, from the last line of its log.
fn progress(kubectl: &Kubectl<'_>, job: &str) -> String {
    let line = kubectl.text(&["logs", &format!("job/{job}"), "--tail=1"]).unwrap_or_default();
    let line: Value = serde_json::from_str(&line).unwrap_or_default();
    match (
        line["stage"].as_str(),
        line["step"].as_u64(),
        line["total"].as_u64(),
        line["eta_seconds"].as_u64(),
    ) {
        (Some(stage), Some(step), Some(total), Some(eta)) => format!("{stage} {step}/{total}, {eta} s left"),
        (Some(stage), ..) => stage.to_owned(),
        _ => "running".to_owned(),
    }
}

fn last_lines(kubectl: &Kubectl<'_>, job: &str) -> String {
    let log = kubectl.text(&["logs", &format!("job/{job}"), "--tail=10"]);
    let log = log.unwrap_or_else(|error| format!("(no log: {error:#})"));
    log.lines().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_says_what_keeps_it_from_running() {
        let waiting = json!({"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}});
        let pod = json!({"status": {"containerStatuses": [{"state": waiting}]}});
        let (reason, message) = obstacle(&pod).unwrap();
        assert!(is_final(&reason) && message == "not present");

        let unscheduled = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"});
        let pod = json!({"status": {"conditions": [unscheduled]}});
        let (reason, message) = obstacle(&pod).unwrap();
        assert!(!is_final(&reason) && message == "no GPU", "a node may come");

        let pod = json!({"status": {"containerStatuses": [{"state": {"running": {}}}]}});
        assert_eq!(obstacle(&pod), None);
    }

    #[test]
    fn a_job_has_failed_when_its_condition_says_so() {
        let job = |status: &str| json!({"status": {"conditions": [{"type": "Failed", "status": status, "message": "backoff"}]}});
        assert_eq!(failure(&job("True")).as_deref(), Some("backoff"));
        assert_eq!(failure(&job("False")), None);
        assert_eq!(failure(&json!({})), None);
    }
}
