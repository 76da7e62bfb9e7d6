//! `target/demo/summary.json`: the demo's result for programs.

use lethe_gates::decimal;
use serde::Serialize;

use super::bound;
use super::gates::Told;
use super::story::Story;
use super::timeline::Timeline;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary<'a> {
    kubernetes: &'a str,
    phase: &'a str,
    served_digest_before: &'a str,
    served_digest_after: &'a str,
    leak_before: Count,
    leak_after: Leak,
    gates: Vec<Told<'a>>,
    sampling: Sampling,
    blocked: Blocked<'a>,
    seconds: Seconds,
    report: &'a str,
}

/// Live samples of the forgotten label that the judge takes for it.
#[derive(Debug, Serialize)]
struct Count {
    hits: u64,
    n: u64,
}

#[derive(Debug, Serialize)]
struct Leak {
    hits: u64,
    n: u64,
    /// Clopper-Pearson, 95 %, from above.
    bound: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampling {
    teacher_images_per_second: f64,
    served_images_per_second: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blocked<'a> {
    phase: &'a str,
    served_digest_unchanged: bool,
}

#[derive(Debug, Serialize)]
struct Seconds {
    total: f64,
    cluster: f64,
    teach: f64,
    prepare: f64,
    forget: f64,
    evaluate: f64,
    rollout: f64,
}

impl<'a> Summary<'a> {
    pub fn of(story: &'a Story, timeline: &Timeline, report: &'a str) -> Self {
        let (after, before) = (&story.leak_after, &story.leak_before);
        let tenths = |seconds: f64| (seconds * 10.0).round() / 10.0;
        let took = |name: &str| tenths(timeline.seconds(name));
        Self {
            kubernetes: &story.kubernetes,
            phase: &story.phase,
            served_digest_before: &story.before.digest,
            served_digest_after: &story.after.digest,
            leak_before: Count { hits: before.hits, n: before.n },
            leak_after: Leak { hits: after.hits, n: after.n, bound: decimal::show_upper(bound(after)) },
            gates: story.gates.iter().map(Told::of).collect(),
            sampling: Sampling {
                teacher_images_per_second: tenths(story.speeds.teacher),
                served_images_per_second: tenths(story.speeds.served),
            },
            blocked: Blocked {
                phase: &story.blocked.phase,
                served_digest_unchanged: story.blocked.served_digest == story.after.digest,
            },
            seconds: Seconds {
                total: tenths(timeline.now()),
                cluster: took(super::CLUSTER),
                teach: took(super::TEACH),
                prepare: took(super::PREPARE),
                forget: took(super::FORGET),
                evaluate: took(super::EVALUATE),
                rollout: took(super::ROLLOUT),
            },
            report,
        }
    }
}
