//! `retry` and `abort`: what is asked for once, by an annotation, and what the operator says to it.

use std::time::Duration;

use jiff::Timestamp;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use lethe_api::{
    printable::printable,
    v1alpha1::{Acknowledged, UnlearnRequest, annotations},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    args::{Ask, ClusterArgs, Format},
    cluster::Place,
    exit::{Exit, Result, Trouble},
    refusal, term, write_data,
};

/// How often an acknowledgement is looked for.
const LOOK: Duration = Duration::from_millis(300);
/// How the operator begins to say that it did nothing.
const NOTHING: &str = "nothing was done";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Retry,
    Abort,
}

impl What {
    fn annotation(self) -> &'static str {
        match self {
            What::Retry => annotations::RETRY,
            What::Abort => annotations::ABORT,
        }
    }

    fn verb(self) -> &'static str {
        match self {
            What::Retry => "retry",
            What::Abort => "abort",
        }
    }

    fn acknowledged(self, request: &UnlearnRequest) -> Option<&Acknowledged> {
        let status = request.status.as_ref()?;
        match self {
            What::Retry => status.retry.as_ref(),
            What::Abort => status.abort.as_ref(),
        }
    }
}

/// # Errors
/// If the API server refuses, or the operator says nothing in time.
pub async fn run(cluster: &ClusterArgs, ask: &Ask, what: What) -> Result<Exit> {
    let place = Place::open(cluster, false).await?;
    let request = place.request(&ask.request).await?;
    let word = word(ask.word.as_deref(), Timestamp::now()).map_err(Trouble::usage)?;
    if let Some(known) = what.acknowledged(&request).filter(|known| known.token == word) {
        return Err(Trouble::not_right(format!(
            "the word {word:?} was acted upon already ({}); use another one",
            printable(&known.message)
        )));
    }
    let name = request.name_any();
    let patch = json!({"metadata": {"annotations": {what.annotation(): word}}});
    let patched =
        place.api::<UnlearnRequest>().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
    let action = format!("ask to {} request {name}", what.verb());
    patched.map_err(|error| refusal::of(&action, Some("lethe-edit"), &error))?;
    let mut asked =
        Asked { verb: what.verb(), namespace: place.one().into(), request: name, word, answer: None };
    if !ask.no_wait {
        asked.answer = Some(acknowledgement(&place, &asked, what, ask.timeout).await?);
    }
    match ask.output.output {
        Format::Text => term::write(&asked.words())?,
        other => write_data(&asked, other)?,
    }
    let did_nothing = asked.answer.is_some_and(|answer| answer.starts_with(NOTHING));
    Ok(if did_nothing { Exit::NotRight } else { Exit::Fine })
}

/// What was asked for, and what the operator said to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    verb: &'static str,
    namespace: String,
    request: String,
    word: String,
    /// None if it was not waited for.
    answer: Option<String>,
}

impl Asked {
    fn words(&self) -> String {
        let Self { verb, request, .. } = self;
        match &self.answer {
            None => format!("asked to {verb} request {request}\n"),
            Some(answer) => format!("request {request}: {}\n", printable(answer)),
        }
    }
}

async fn acknowledgement(place: &Place, asked: &Asked, what: What, seconds: u64) -> Result<String> {
    let (name, word) = (&asked.request, &asked.word);
    let look = async {
        loop {
            let request = place.request(name).await?;
            if let Some(known) = what.acknowledged(&request).filter(|known| known.token == *word) {
                return Ok(known.message.clone());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(seconds), look).await.unwrap_or_else(|_| {
        Err(Trouble::unreachable(format!(
            "request {name} was asked for, and nothing was said to it within {seconds} s: it stands, and is acted upon as \
             soon as the operator sees it. Is one running? kubectl lethe get {name}"
        )))
    })
}

/// The annotation's value: at most as many characters as count.
fn word(given: Option<&str>, now: Timestamp) -> std::result::Result<String, String> {
    let Some(given) = given else {
        return Ok(now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
    };
    let word = given.trim();
    let fits = !word.is_empty() && word.chars().count() <= annotations::LENGTH && printable(word) == word;
    match fits {
        true => Ok(word.to_owned()),
        false => Err(format!("--word takes from 1 to {} printable characters", annotations::LENGTH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_the_time_or_what_was_given_if_all_of_it_counts() {
        let now = "2026-11-27T12:00:00.5Z".parse().unwrap();
        assert_eq!(word(None, now).unwrap(), "2026-11-27T12:00:00.500Z");
        assert_eq!(word(Some(" monday "), now).unwrap(), "monday");
        for bad in ["", "  ", "a\nb", &"x".repeat(65)] {
            assert!(word(Some(bad), now).is_err(), "{bad:?}");
        }
    }
}
