//! The scripts behind the tabulator key, as shells read them.

use std::process::{Command, Stdio};

use clap::CommandFactory;
use kubectl_lethe::args::Args;

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Asks what bash itself would ask once the key is pressed behind the last of these words.
const ASK: &str = r#"
source "$1"; shift
function=$(complete -p kubectl-lethe | sed 's/.* -F \([^ ]*\) .*/\1/')
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$function" kubectl-lethe "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

fn script(shell: &str) -> String {
    let program = env!("CARGO_BIN_EXE_kubectl-lethe");
    output(Command::new(program).args(["completion", shell]).env_clear())
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?} ended with {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn offered(words: &[&str]) -> Vec<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script("bash")).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK, "bash"]).arg(file.path()).arg("kubectl-lethe").args(words);
    let mut offered: Vec<_> = output(&mut bash).lines().map(str::to_owned).collect();
    offered.sort();
    offered
}

/// Those that people are shown.
fn verbs() -> Vec<String> {
    let command = Args::command();
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    shown.map(|verb| verb.get_name().to_owned()).collect()
}

#[test]
fn bash_completes_verbs_their_flags_and_their_values() {
    let all = offered(&[""]);
    let missing: Vec<_> = verbs().into_iter().filter(|verb| !all.contains(verb)).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {all:?}");
    assert_eq!(offered(&["app"]), ["approve"]);
    assert_eq!(offered(&["re"]), ["report", "retry"]);
    assert_eq!(offered(&["approve", "--rea"]), ["--reason"]);
    assert_eq!(offered(&["completion", "ba"]), ["bash"]);
    assert_eq!(offered(&["completion", "z"]), ["zsh"]);
    assert_eq!(offered(&["no-such-verb", "no-such-word"]), [""]);
}

#[test]
fn the_scripts_have_no_mistakes_and_name_every_verb() {
    for shell in SHELLS {
        let script = script(shell);
        for verb in verbs() {
            // In the words with which each shell lists them.
            let listed = match shell {
                "bash" => format!("kubectl__lethe,{verb})"),
                "zsh" => format!("\n'{verb}:"),
                _ => format!("_needs_command\" -f -a \"{verb}\""),
            };
            assert!(script.contains(&listed), "the script for {shell} does not offer {verb} ({listed})");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        let is_there = Command::new(shell).args(["-c", "exit"]).status().is_ok_and(|status| status.success());
        if is_there {
            output(Command::new(shell).arg("-n").arg(file.path()));
        } else {
            assert_ne!(shell, "bash", "there is no bash");
            println!("{shell} is not installed: nothing has read its script");
        }
    }
}
