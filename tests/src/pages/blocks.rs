//! A page as a test reads it: which of its blocks are commands, which show what these print, and whether it shows a command
//! that nobody would run.

use anyhow::{Context, Result, bail, ensure};

/// What commands begin with. In a sentence such a command is shown as well, so that it has to be in a block too.
const PROGRAMS: [&str; 9] = [
    "kubectl",
    "kubectl-lethe",
    "helm",
    "promtool",
    "jq",
    "sha256sum",
    "cargo",
    "lethe-trainer",
    "lethe-operator",
];
/// What the first line of a block says that no test runs; a reason follows.
const NOT_RUN: &str = "# Not run by the test: ";
/// Of those a page has no more.
const MOST_NOT_RUN: usize = 2;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `sh`: commands, which are run.
    Commands,
    /// `console`: what the block before it prints.
    Shown,
    /// `text`: commands that cannot be run here, with the reason.
    NotRun,
}

/// What is between two fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub kind: Kind,
    /// The line of its first line, as an editor counts.
    pub line: usize,
    /// The heading that it stands under.
    pub heading: String,
    pub text: String,
}

/// All blocks of a page.
///
/// # Errors
/// If it has a block of another kind, one that shows the output of nothing, or a command that is in no block. It makes no
/// difference whether the block is in a comment: what nobody reads is no command either.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(Block, usize)> = None;
    let mut heading = String::new();
    let mut prose = Vec::new();
    for (number, line) in (1..).zip(page.lines()) {
        let bare = line.trim_start();
        match (bare.strip_prefix("```"), &mut open) {
            (Some(info), None) => {
                let kind = kind(info.trim()).with_context(|| format!("line {number}"))?;
                let block = Block { kind, line: number + 1, heading: heading.clone(), text: String::new() };
                open = Some((block, line.len() - bare.len()));
            }
            (Some(info), Some(_)) => {
                ensure!(info.trim().is_empty(), "line {number}: a block begins within another one");
                blocks.extend(open.take().map(|(block, _)| block));
            }
            (None, Some((block, indent))) => {
                let skip = (line.len() - bare.len()).min(*indent);
                block.text += &line[skip..];
                block.text.push('\n');
            }
            (None, None) => {
                let other = ["~~~", "<pre", "<code"].iter().any(|other| bare.starts_with(other));
                ensure!(!other, "line {number}: blocks stand between lines of ```");
                let indented = line.starts_with("    ") && is_command(bare);
                ensure!(!indented, "line {number}: this command is in no block");
                if bare.starts_with('#') {
                    bare.trim_start_matches('#').trim().clone_into(&mut heading);
                }
                prose.push((number, line));
            }
        }
    }
    if let Some((block, _)) = open {
        bail!("line {}: this block has no end", block.line);
    }
    sensible(&blocks)?;
    in_sentences(&prose, &blocks)?;
    Ok(blocks)
}

fn kind(info: &str) -> Result<Kind> {
    Ok(match info {
        "sh" => Kind::Commands,
        "console" => Kind::Shown,
        "text" => Kind::NotRun,
        other => bail!(
            "a block of {other:?}: a page has `sh` for commands, `console` for what they print, and `text`"
        ),
    })
}

fn sensible(blocks: &[Block]) -> Result<()> {
    let mut before = None;
    for block in blocks {
        let line = block.line;
        match block.kind {
            Kind::Commands => {}
            Kind::Shown => {
                ensure!(
                    before == Some(Kind::Commands),
                    "line {line}: this shows the output of no `sh` block"
                );
                let typed = block.text.lines().any(|line| line.starts_with("$ "));
                ensure!(
                    !typed,
                    "line {line}: a command among output is not run; it belongs into an `sh` block"
                );
            }
            Kind::NotRun => {
                let why = block.text.strip_prefix(NOT_RUN).and_then(|text| text.lines().next());
                let says = why.is_some_and(|why| why.split_whitespace().count() > 2);
                ensure!(says, "line {line}: the first line has to be {NOT_RUN:?} and a reason");
            }
        }
        before = Some(block.kind);
    }
    let not_run = blocks.iter().filter(|block| block.kind == Kind::NotRun).count();
    ensure!(not_run <= MOST_NOT_RUN, "{not_run} blocks are not run; a page may have {MOST_NOT_RUN}");
    ensure!(blocks.iter().any(|block| block.kind == Kind::Commands), "there are no commands");
    Ok(())
}

/// A command in a sentence is also in a block.
fn in_sentences(prose: &[(usize, &str)], blocks: &[Block]) -> Result<()> {
    let run = blocks.iter().filter(|block| block.kind != Kind::Shown).map(|block| one_line(&block.text));
    let run: Vec<String> = run.collect();
    for (number, line) in prose {
        for code in line.split('`').skip(1).step_by(2) {
            let code = one_line(code);
            if is_command(&code) && !run.iter().any(|text| text.contains(&code)) {
                bail!("line {number}: `{code}` is in no block that is run");
            }
        }
    }
    Ok(())
}

/// Whether it is more than the name of a program.
fn is_command(code: &str) -> bool {
    let mut words = code.split_whitespace();
    words.next().is_some_and(|first| PROGRAMS.contains(&first)) && words.any(|word| word != "lethe")
}

/// With single spaces, and without the ends of lines that go on.
fn one_line(text: &str) -> String {
    text.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(page: &str) -> String {
        format!("{:#}", blocks(page).expect_err("it is refused"))
    }

    #[test]
    fn blocks_know_their_line_and_their_heading() {
        let page =
            "# A\n\n1. Do:\n\n   ```sh\n   if true; then\n     ls\n   fi\n   ```\n\n```console\nfile\n```\n";
        let found = blocks(page).unwrap();
        assert_eq!(found[0].text, "if true; then\n  ls\nfi\n");
        assert_eq!((found[0].kind, found[0].line, found[0].heading.as_str()), (Kind::Commands, 6, "A"));
        assert_eq!((found[1].kind, found[1].line), (Kind::Shown, 12));
    }

    #[test]
    fn no_command_gets_by() {
        let run = "```sh\nkubectl get pods\n```\n";
        assert!(refusal("```bash\nls\n```\n").contains("a block of \"bash\""));
        assert!(refusal("```\nls\n```\n").contains("a block of \"\""));
        assert!(refusal("~~~sh\nls\n~~~\n").contains("between lines of ```"));
        assert!(refusal("<pre>ls</pre>\n").contains("between lines of ```"));
        assert!(refusal("Do this:\n\n    kubectl get pods\n").contains("in no block"));
        assert!(refusal("```sh\nls\n").contains("has no end"));
        assert!(refusal(&format!("{run}```console\n$ ls\n```\n")).contains("is not run"));
        assert!(refusal("```console\nfile\n```\n").contains("the output of no"));
        assert!(refusal(&format!("{run}```text\ncargo xtask image\n```\n")).contains("and a reason"));
        assert!(refusal(&format!("{run}Then `kubectl delete pods`.\n")).contains("in no block"));
        assert!(refusal("Nothing to do.\n").contains("no commands"));
    }

    #[test]
    fn a_comment_hides_no_block() {
        let found = blocks("<!--\n```sh\nls\n```\n-->\n").unwrap();
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn what_is_not_run_says_why_and_is_seldom() {
        let block = "```text\n# Not run by the test: it needs a GPU\ncargo xtask image\n```\n";
        let run = "```sh\nkubectl get pods\n```\n";
        assert!(
            blocks(&format!("{run}{block}By `cargo xtask image`, `kubectl get`, `kubectl lethe`.\n")).is_ok()
        );
        assert!(refusal(&format!("{run}{block}{block}{block}")).contains("3 blocks are not run"));
    }
}
