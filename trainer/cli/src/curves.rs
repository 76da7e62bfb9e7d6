//! How a training goes: one record, which the log, `metrics.jsonl`, `/progress` and a run's curves show alike.

use std::{
    fs,
    time::{Duration, Instant},
};

use lethe_api::contract::Metrics;
use lethe_sfd::{Named, Progress};

/// Steps between two records of a short training. Between them nothing waits for the device.
const LEAST_STEPS: u64 = 20;
/// A training has no more records than this, however long it is.
const MOST_RECORDS: u64 = Metrics::MAX_LINES - 1;

/// Steps from one record of a training of `total` steps to the next. More than a few are whole hundreds, so that what is
/// seen every hundred steps is in the same record whether or not there was an interruption.
pub(crate) fn interval(total: u64) -> u64 {
    let least = total.div_ceil(MOST_RECORDS);
    if least <= LEAST_STEPS { LEAST_STEPS } else { least.next_multiple_of(100) }
}

/// What a training has said of itself, from its first step on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Curves {
    records: Vec<Metrics>,
}

impl Curves {
    /// What [`Curves::to_lines`] wrote.
    pub(crate) fn parse(lines: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(lines).map_err(|error| format!("the metrics: {error}"))?;
        Ok(Self { records: Metrics::parse_lines(text)? })
    }

    pub(crate) fn push(&mut self, record: Metrics) {
        self.records.push(record);
    }

    pub(crate) fn images(&self) -> u64 {
        self.records.last().map_or(0, |record| record.images)
    }

    /// Every record as it was made: `metrics.jsonl`.
    pub(crate) fn to_lines(&self) -> Vec<u8> {
        lines(self.records.iter().map(Metrics::to_line))
    }

    /// What of them is a function of the plan: the blob that a record names.
    pub(crate) fn reproducible(&self) -> Vec<u8> {
        lines(self.records.iter().map(|record| record.reproducible().to_line()))
    }
}

fn lines(lines: impl Iterator<Item = String>) -> Vec<u8> {
    lines.flat_map(|line| (line + "\n").into_bytes()).collect()
}

/// Makes the records of one training in this process.
pub(crate) struct Recorder {
    /// When the last record was made, and how many images the training had seen by then.
    last: (Instant, u64),
}

impl Recorder {
    /// `images`: what the training has seen already.
    pub(crate) fn new(images: u64) -> Self {
        Self { last: (Instant::now(), images) }
    }

    /// The one place in which a record is made.
    pub(crate) fn record(&mut self, progress: &Progress, looks: &[Named], eta: Option<u64>) -> Metrics {
        let named = |values: &[Named]| {
            // JSON has no other numbers. Losses and norms that are not finite end the training before this.
            let finite = values.iter().filter(|(_, value)| value.is_finite());
            finite.map(|&(name, value)| (name.to_owned(), short(value))).collect()
        };
        let (before, images) = std::mem::replace(&mut self.last, (Instant::now(), progress.images));
        Metrics {
            schema: Metrics::SCHEMA.into(),
            stage: progress.stage.name().into(),
            step: progress.step,
            total: progress.total,
            images: progress.images,
            losses: named(&progress.losses),
            gradient_norms: named(&progress.gradient_norms),
            looks: named(&[&progress.looks, looks].concat()),
            seconds_per_1000_images: pace(before.elapsed(), progress.images.saturating_sub(images)),
            eta_seconds: eta,
            memory_bytes: peak_memory(),
        }
    }
}

/// Seven significant digits, which is what single precision has. Numbers so short come back from JSON to the bit, and a
/// resumed training has to write the same again; smaller ones than are so certain are nothing.
fn short(value: f64) -> f64 {
    if value.abs() < 1e-15 { 0.0 } else { format!("{value:.6e}").parse().unwrap_or(value) }
}

/// Seconds per thousand images, to the microsecond.
fn pace(elapsed: Duration, images: u64) -> Option<f64> {
    (images > 0).then(|| (elapsed.as_secs_f64() / images as f64 * 1e9).round() / 1e6)
}

/// The largest resident set that this process has had, by the kernel's word.
fn peak_memory() -> Option<u64> {
    resident_peak(&fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lethe_sfd::Stage;

    fn progress(step: u64) -> Progress {
        Progress {
            stage: Stage::Forget,
            step,
            total: 100,
            images: 192 * step,
            losses: vec![("generator (forget)", 0.1)],
            gradient_norms: vec![("generator", 2.0)],
            looks: vec![("kept accuracy", 0.9)],
        }
    }

    #[test]
    fn however_long_a_training_is_it_has_at_most_a_thousand_records() {
        for total in [1, 20, 1_000, 20_000, 20_001, 250_000, 10_000_000] {
            let records = total / interval(total);
            assert!(records <= MOST_RECORDS, "{total}: {records}");
            assert!(total < 20 || records >= MOST_RECORDS / 5 || records == total / 20, "{total}: {records}");
        }
        assert_eq!([1_000, 20_000, 20_001, 150_000].map(interval), [20, 20, 100, 200]);
    }

    #[test]
    fn a_record_holds_what_the_training_says_and_what_the_loop_saw() {
        let record = Recorder::new(0).record(&progress(20), &[("leak", 0.25)], Some(7));
        assert_eq!((record.stage.as_str(), record.step, record.images), ("forget", 20, 3840));
        assert_eq!((record.losses["generator (forget)"], record.gradient_norms["generator"]), (0.1, 2.0));
        assert_eq!((record.looks["leak"], record.looks["kept accuracy"], record.looks.len()), (0.25, 0.9, 2));
        assert!(record.seconds_per_1000_images.is_some() && record.memory_bytes > Some(1 << 20));
    }

    #[test]
    fn lines_are_read_as_they_were_written_and_the_curves_hold_no_time() {
        let (mut curves, mut recorder) = (Curves::default(), Recorder::new(0));
        for step in [20, 40] {
            curves.push(recorder.record(&progress(step), &[], Some(1)));
        }
        assert_eq!(Curves::parse(&curves.to_lines()).unwrap(), curves);
        let reproducible = Curves::parse(&curves.reproducible()).unwrap();
        assert_eq!((reproducible.records.len(), reproducible.images()), (2, 40 * 192));
        assert!(reproducible.records.iter().all(|record| record.memory_bytes.is_none()));
    }

    #[test]
    fn a_short_number_comes_back_from_json_to_the_bit() {
        assert_eq!((short(0.1 + 0.2), short(-1e-16), short(0.0)), (0.3, 0.0, 0.0));
        let mut value = 1.234_567_890_123e-15;
        while value < 1e20 {
            let shortened = short(value);
            let back: f64 = serde_json::from_str(&serde_json::to_string(&shortened).unwrap()).unwrap();
            assert_eq!(back.to_bits(), shortened.to_bits(), "{value}");
            assert!((shortened / value - 1.0).abs() < 1e-6);
            value *= 1.001_3;
        }
    }

    #[test]
    fn the_pace_is_of_a_thousand_images() {
        assert_eq!(pace(Duration::from_secs(2), 500), Some(4.0));
        assert_eq!(pace(Duration::from_secs(2), 0), None);
    }

    #[test]
    fn the_kernel_tells_how_much_memory_was_held() {
        assert_eq!(resident_peak("VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_peak("VmPeak:\t 9 kB\n"), None);
    }
}
