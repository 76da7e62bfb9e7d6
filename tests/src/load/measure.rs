//! What Linux and the operator's own metrics say about a process.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};

const MIB: f64 = 1024.0;
/// In which /proc counts processor time, on every Linux that this runs on.
const USER_HZ: f64 = 100.0;

/// Memory of a process, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

/// # Errors
/// If there is no such process.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib: Option<f64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        kib.map(|kib| kib / MIB).with_context(|| format!("/proc has no {name}"))
    };
    Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// Processor time that a process has had.
///
/// # Errors
/// If there is no such process.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    // The name of the program, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
    Ok(Duration::from_secs_f64((user + system) as f64 / USER_HZ))
}

/// How long the operator took to look at an object of one kind, since it started.
#[derive(Clone, Debug, PartialEq)]
pub struct Looks {
    /// Upper ends in seconds, with how many took no longer; the last is infinite.
    buckets: Vec<(f64, f64)>,
}

impl Looks {
    /// From the text of `/metrics`.
    ///
    /// # Errors
    /// If the metric is not there as Prometheus writes it.
    pub fn of(metrics: &str, controller: &str) -> Result<Self> {
        let prefix = format!("lethe_reconcile_duration_seconds_bucket{{controller=\"{controller}\",le=\"");
        let mut buckets = Vec::new();
        for rest in metrics.lines().filter_map(|line| line.strip_prefix(&prefix)) {
            let (end, count) = rest.split_once("\"} ").context("a line that is no bucket")?;
            buckets.push((end.replace("+Inf", "inf").parse()?, count.parse()?));
        }
        Ok(Self { buckets })
    }

    /// Those of them that came after `earlier`, which the same process said.
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets = self.buckets.iter().zip(&earlier.buckets);
        Self { buckets: buckets.map(|(now, before)| (now.0, now.1 - before.1)).collect() }
    }

    pub fn count(&self) -> usize {
        self.buckets.last().map_or(0, |(_, count)| *count as usize)
    }

    /// The time in milliseconds that a share of the looks did not exceed, between the ends of its bucket as if they were
    /// spread evenly.
    ///
    /// # Errors
    /// If there were none.
    pub fn quantile(&self, share: f64) -> Result<f64> {
        let wanted = share * self.count() as f64;
        ensure!(wanted > 0.0, "nothing was looked at");
        let mut before = (0.0, 0.0);
        for &(end, count) in &self.buckets {
            if count >= wanted {
                let within = (wanted - before.1) / (count - before.1);
                let end = if end.is_finite() { end } else { before.0 };
                return Ok(1000.0 * (before.0 + within * (end - before.0)));
            }
            before = (end, count);
        }
        anyhow::bail!("the last bucket does not hold everything")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = r#"
lethe_reconcile_duration_seconds_bucket{controller="request",le="0.001"} 90
lethe_reconcile_duration_seconds_bucket{controller="request",le="0.005"} 98
lethe_reconcile_duration_seconds_bucket{controller="request",le="0.01"} 100
lethe_reconcile_duration_seconds_bucket{controller="request",le="+Inf"} 100
lethe_reconcile_duration_seconds_bucket{controller="run",le="+Inf"} 7
"#;

    #[test]
    fn quantiles_lie_where_the_buckets_say() {
        let looks = Looks::of(METRICS, "request").unwrap();
        assert_eq!(looks.count(), 100);
        assert!((looks.quantile(0.9).unwrap() - 1.0).abs() < 1e-9);
        assert!((looks.quantile(0.99).unwrap() - 7.5).abs() < 1e-9);
        assert!(Looks::of(METRICS, "model").unwrap().quantile(0.99).is_err());
        let later = METRICS.replace(" 100", " 110");
        let since = Looks::of(&later, "request").unwrap().since(&looks);
        assert_eq!((since.count(), since.quantile(0.5).unwrap()), (10, 7.5), "all between 5 and 10 ms");
    }

    #[test]
    fn a_process_is_read_from_proc() {
        let own = std::process::id();
        let memory = memory(own).unwrap();
        assert!(memory.now > 1.0 && memory.peak >= memory.now, "{memory:?}");
        assert!(processor_time(own).unwrap() < Duration::from_secs(3600));
        assert!(super::memory(u32::MAX).is_err());
    }
}
