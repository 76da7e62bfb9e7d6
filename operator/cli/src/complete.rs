//! Names at the end of a command line. kubectl asks a program `kubectl_complete-lethe`, which asks this.

use clap::CommandFactory;
use kube::ResourceExt;

use crate::{
    args::{Args, ClusterArgs},
    cluster::Place,
    exit::{Exit, Result},
    term,
};

/// What kubectl does with an answer (cobra's directives): no files, or files if there is nothing else.
const NO_FILES: &str = ":4\n";
const FILES: &str = ":0\n";

/// # Errors
/// If nobody reads the answer. That there is no cluster is no error: there is nothing to offer then.
pub async fn run(cluster: &ClusterArgs, words: &[String]) -> Result<Exit> {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let Line { verb, cluster } = Line::parse(before, cluster);
    let cluster = &cluster;
    let (offers, directive) = match verb {
        None => (verbs(), NO_FILES),
        Some("lint" | "verify") => (vec![], FILES),
        Some("get" | "watch") => (names(cluster, true, true).await, NO_FILES),
        Some("report") => (names(cluster, true, false).await, NO_FILES),
        Some("approve" | "deny" | "retry" | "abort") => (names(cluster, false, true).await, NO_FILES),
        Some("completion") => (["bash", "zsh", "fish"].map(String::from).into(), NO_FILES),
        Some(_) => (vec![], NO_FILES),
    };
    let mut text: String =
        offers.iter().filter(|offer| offer.starts_with(last)).map(|offer| format!("{offer}\n")).collect();
    text += directive;
    term::write(&text)?;
    Ok(Exit::Fine)
}

/// What of a command line matters for what may follow.
struct Line<'a> {
    verb: Option<&'a str>,
    cluster: ClusterArgs,
}

impl<'a> Line<'a> {
    fn parse(words: &'a [String], cluster: &ClusterArgs) -> Self {
        let mut line = Self { verb: None, cluster: cluster.clone() };
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let (flag, value) =
                word.split_once('=').map_or((word, None), |(flag, value)| (flag, Some(value)));
            let place = match flag {
                "-n" | "--namespace" => &mut line.cluster.namespace,
                "--context" => &mut line.cluster.context,
                "--kubeconfig" => {
                    line.cluster.kubeconfig = value.or_else(|| words.next()).map(Into::into);
                    continue;
                }
                _ => {
                    if !word.starts_with('-') && line.verb.is_none() {
                        line.verb = Some(word);
                    }
                    continue;
                }
            };
            *place = value.or_else(|| words.next()).map(str::to_owned);
        }
        line
    }
}

fn verbs() -> Vec<String> {
    let command = Args::command();
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    shown
        .map(|verb| match verb.get_about() {
            Some(about) => format!("{}\t{about}", verb.get_name()),
            None => verb.get_name().to_owned(),
        })
        .collect()
}

async fn names(cluster: &ClusterArgs, models: bool, requests: bool) -> Vec<String> {
    let Ok(place) = Place::open(cluster, false).await else { return vec![] };
    let Ok(seen) = place.see().await else { return vec![] };
    let models = seen.models.iter().filter(|_| models).map(ResourceExt::name_any);
    let requests = seen.requests.iter().filter(|_| requests).map(ResourceExt::name_any);
    models.chain(requests).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_is_found_behind_flags_and_their_values() {
        let words = ["-n", "studio", "--context=away", "approve", "--reason"].map(String::from);
        let line = Line::parse(&words, &ClusterArgs::default());
        assert_eq!(line.verb, Some("approve"));
        assert_eq!(line.cluster.namespace.as_deref(), Some("studio"));
        assert_eq!(line.cluster.context.as_deref(), Some("away"));
        assert!(verbs().iter().any(|verb| verb.starts_with("lint\t")));
    }
}
