use lethe_api::gate::Verdict;

use super::*;
use crate::demo::live::{Judged, Sampled};
use crate::demo::story::{Blocked, Evidence, Made, Speeds, Taught};

/// A story as a run would tell it, with `hostile` wherever the cluster may put text.
fn story(hostile: &str) -> Story {
    let judged = |label: &str, hits: u64, rest: u64| Judged {
        label: label.into(),
        hits,
        n: 3000,
        judged: [(label.to_owned(), hits), ("8".to_owned(), rest)].into(),
        digest: "sha256:aa".into(),
        images_per_second: 9000.0,
    };
    let sampled = |hits: u64| Sampled {
        digest: format!("sha256:{hits:064x}"),
        labels: vec![judged("3", hits, 3000 - hits), judged(hostile, 2990, 0)],
        rows: vec![vec![1, 2, 3], vec![4, 5, 6]],
    };
    let gate = |verdict: Verdict, message: Option<&str>| GateResult {
        name: GateName::DirectLeak,
        target: Some(hostile.into()),
        value: Some("0.0007".into()),
        bound: Some("0.0021".into()),
        threshold: Some("0.005".into()),
        n: Some(3000),
        verdict,
        hits: Some(2),
        base_rate: Some("0.0010".into()),
        message: message.map(str::to_owned),
    };
    Story {
        kubernetes: "v1.36.4".into(),
        base: Taught { digest: "sha256:01".into(), images: 1797, steps: 4000 },
        made: Made { bundle: "sha256:02".into(), judge: "sha256:03".into(), reference: "sha256:04".into() },
        before: sampled(2987),
        after: sampled(2),
        leak_before: judged("3", 2987, 13),
        leak_after: judged("3", 2, 2998),
        target: "3".into(),
        replacement: "8".into(),
        phase: "Fulfilled".into(),
        gates: vec![gate(Verdict::Pass, None)],
        evidence: Evidence { record: "sha256:05".into(), page: String::new() },
        speeds: Speeds { teacher: 300.0, one_step: 9000.0, served: 4500.0 },
        blocked: Blocked {
            phase: "Held".into(),
            gates: vec![gate(Verdict::Fail, Some(hostile))],
            served_digest: "sha256:08".into(),
        },
    }
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = html(&story("7"), &Timeline::start(), "evaluation.html");
    let sources: Vec<_> = page.split("src=\"").skip(1).collect();
    assert_eq!(sources.len(), 4, "two rows of two pictures");
    assert!(sources.iter().all(|source| source.starts_with("data:image/png;base64,")));
    for loader in ["<link", "<script", "@import", "url("] {
        assert!(!page.contains(loader), "{loader}");
    }
}

#[test]
fn the_page_says_what_was_found() {
    let page = html(&story("7"), &Timeline::start(), "evaluation.html");
    for found in [
        "2,987 of 3,000 live samples",
        "2 of 3,000 live samples",
        "\u{2264} 0.21\u{a0}%",
        ">30\u{d7}<",
        "2 as 3, 2,998 as 8",
        "href=\"evaluation.html\"",
    ] {
        assert!(page.contains(found), "{found}");
    }
}

#[test]
fn text_from_the_cluster_cannot_break_out_of_the_page() {
    let page = html(&story("<script>\"&"), &Timeline::start(), "evaluation.html");
    assert!(!page.contains("<script>"));
    assert!(page.contains("&lt;script&gt;&quot;&amp;"));
}
