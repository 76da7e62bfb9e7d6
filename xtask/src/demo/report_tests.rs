use super::*;
use crate::demo::live::{Judged, Sampled};
use crate::demo::story::{Blocked, Evidence, Made, Speeds, Taught};

#[test]
fn every_placeholder_of_the_page_is_filled() {
    let keys = PAGE.split("{{").skip(1).filter_map(|part| part.split_once("}}")).map(|(key, _)| key);
    let values: Vec<_> = keys.map(|key| (key, "X")).collect();
    assert!(values.len() > 15 && !fill(&values).contains("{{"));
}

#[test]
fn numbers_are_short_to_read_and_bounds_never_too_small() {
    assert_eq!(thousands(1_234_567.4), "1,234,567");
    assert_eq!((thousands(0.0), thousands(999.6)), ("0".into(), "1,000".into()));
    assert_eq!(percent_above(0.002_001), "0.21 %");
    assert_eq!(percent_above(0.9994), "99.94 %");
    assert_eq!(percent(0.9957), "99.6 %");
    assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
}

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
    let gate = |verdict: &str, message: Option<&str>| Gate {
        name: "direct-leak".into(),
        target: Some(hostile.into()),
        value: Some("0.0007".into()),
        bound: Some("0.0021".into()),
        threshold: Some("0.005".into()),
        n: Some(3000),
        verdict: verdict.into(),
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
        gates: vec![gate("Pass", None)],
        evidence: Evidence {
            record: "sha256:05".into(),
            before: ("sha256:06".into(), vec![7]),
            after: ("sha256:07".into(), vec![8]),
        },
        speeds: Speeds { teacher: 300.0, one_step: 9000.0, served: 4500.0 },
        blocked: Blocked {
            phase: "Held".into(),
            gates: vec![gate("Fail", Some(hostile))],
            served_digest: "sha256:08".into(),
        },
    }
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = html(&story("7"), &Timeline::start());
    let sources: Vec<_> = page.split("src=\"").skip(1).collect();
    assert_eq!(sources.len(), 6, "two rows of two pictures, and the evaluation's two");
    assert!(sources.iter().all(|source| source.starts_with("data:image/png;base64,")));
    for loader in ["<link", "<script", "@import", "url("] {
        assert!(!page.contains(loader), "{loader}");
    }
}

#[test]
fn the_page_says_what_was_found() {
    let page = html(&story("7"), &Timeline::start());
    for found in [
        "2,987 of 3,000 live samples",
        "2 of 3,000 live samples",
        "\u{2264} 0.21 %",
        ">30\u{d7}<",
        "2 as 3, 2,998 as 8",
    ] {
        assert!(page.contains(found), "{found}");
    }
}

#[test]
fn text_from_the_cluster_cannot_break_out_of_the_page() {
    let page = html(&story("<script>\"&{{title}}"), &Timeline::start());
    assert!(!page.contains("<script>"));
    assert!(page.contains("&lt;script&gt;&quot;&amp;{{title}}"), "and is not filled in again");
}
