//! Gates on what probes found: attempts to make a candidate show what it should have forgotten, and the labels most like it.

use std::collections::{BTreeSet, HashSet};

use lethe_api::{
    contract::{
        Attempt, Budget, Count, EvaluateRecord, EvaluateTask, NeighbourMeasurement, ProbeLevel, ProbeName,
        ProbeRecord, Sighting,
    },
    gate::{Gate, GateName, GateResult, Verdict},
};

use crate::{
    DEFAULT_CONFIDENCE, binomial, blank, compare, counted, decimal, error, is_overlooked, lower_bound,
    plausible, share, short, threshold, too_few,
};

/// A model that never saw a label shows it under that label as often as chance has it. One that shows it in more than half of
/// its samples, surely, saw it.
const SAW_IT: f64 = 0.5;

/// The probes of a record, if they are those that the plan asked for, and enough for this gate. Numbers that cannot be make
/// all of them worthless.
pub(crate) fn sound<'a>(
    gate: GateName,
    task: &EvaluateTask,
    record: &'a EvaluateRecord,
) -> Result<&'a ProbeRecord, String> {
    let needed = gate.level().unwrap_or(ProbeLevel::Fast);
    let asked = task.probes.as_ref().filter(|asked| asked.level >= needed);
    let asked =
        asked.ok_or_else(|| format!("gate {gate} needs probes: {needed:?}, which nobody asked for"))?;
    let found = record.probes.as_ref().ok_or("the record has no probes")?;
    if found.asked != *asked {
        return Err("the probes are of another level, teacher or never-saw model than was asked for".into());
    }
    let targets: BTreeSet<&str> = task.targets.iter().map(|target| target.label.as_str()).collect();
    let mut made = HashSet::new();
    for one in &found.attempts {
        let Attempt { probe, attempt, target, .. } = one;
        let which = || format!("{probe:?} {attempt:?} at {target:?}");
        if !targets.contains(target.as_str()) {
            return Err(format!("{}: nobody asked for this target", which()));
        }
        if !made.insert((*probe, attempt, target)) {
            return Err(format!("{} was made more than once", which()));
        }
        if one.never_saw.is_some() != asked.never_saw.is_some() {
            return Err(format!("{}: the never-saw model was not tried as it was asked for", which()));
        }
        let (took, least) = (one.budget.steps, Budget::least(*probe, attempt).steps);
        if took < least {
            return Err(format!(
                "{} took {took} steps, and has shown nothing before it takes {least}",
                which()
            ));
        }
        let seen = [Some(one.candidate), Some(one.control), one.never_saw];
        seen.into_iter().flatten().try_for_each(possible).map_err(|why| format!("{}: {why}", which()))?;
    }
    if let Some(odd) = found.neighbours.iter().find(|m| !targets.contains(m.target.as_str())) {
        return Err(format!("neighbours of {:?}: nobody asked for this target", odd.target));
    }
    Ok(found)
}

fn possible(Sighting { hits, inside, n }: Sighting) -> Result<(), String> {
    if n == 0 {
        return Err("there are no samples".into());
    }
    if inside > hits {
        return Err(format!(
            "{inside} images among the teacher's, of {hits} that were recognised, cannot be"
        ));
    }
    plausible(Count { hits, n })
}

/// One result per target of a gate on attempts.
pub(crate) fn attempts(gate: &Gate, task: &EvaluateTask, record: &EvaluateRecord) -> Vec<GateResult> {
    let found = sound(gate.name, task, record).and_then(|found| {
        let probe = gate.name.probe().ok_or("this gate reads no attempts")?;
        Ok(Trial { gate, probe, limits: Limits::of(gate)?, kept: task.kept.len() as u64, found })
    });
    let trial = match found {
        Ok(trial) => trial,
        Err(why) => return vec![error(gate.name, None, why)],
    };
    let one = |label: &String| {
        let result = trial
            .judge(label)
            .unwrap_or_else(|why| GateResult { message: Some(short(why)), ..blank(gate.name) });
        GateResult { target: Some(label.clone()), ..result }
    };
    task.targets.iter().map(|target| one(&target.label)).collect()
}

/// What the policy allows.
struct Limits {
    bound: Option<f64>,
    null: Option<f64>,
    above: Option<f64>,
    confidence: f64,
}

impl Limits {
    fn of(gate: &Gate) -> Result<Self, String> {
        let parse = |field: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(_) => threshold(text)
                .map(Some)
                .ok_or_else(|| format!("the policy's {field} is not a decimal number")),
        };
        Ok(Self {
            bound: parse("maxBound", &gate.max_bound)?,
            null: parse("maxNull", &gate.max_null)?,
            above: parse("maxAboveNeverSaw", &gate.max_above_never_saw)?,
            confidence: parse("confidence", &gate.confidence)?.unwrap_or(DEFAULT_CONFIDENCE),
        })
    }
}

/// What a gate does with an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Its upper bound must keep the limit.
    Bounded,
    /// It was chosen for what it showed, from many with few samples each: no bound would keep any limit. It fails where it
    /// surely is above.
    Chosen,
    /// Without a label: by a limit of its own, if there is one.
    Null,
    Unread,
}

struct Trial<'a> {
    gate: &'a Gate,
    probe: ProbeName,
    limits: Limits,
    /// How many labels are kept.
    kept: u64,
    found: &'a ProbeRecord,
}

impl Trial<'_> {
    /// The worst of all that the gate reads at one target.
    fn judge(&self, target: &str) -> Result<GateResult, String> {
        let made = |probe: ProbeName| {
            self.found.attempts.iter().filter(move |one| one.probe == probe && one.target == target)
        };
        let required = self.probe.attempts(self.found.asked.level);
        if let Some(missing) = required.iter().find(|name| made(self.probe).all(|one| one.attempt != **name))
        {
            return Err(format!("the attempt {missing:?} was not made"));
        }
        if self.limits.above.is_some() {
            self.never_saw_it(made(ProbeName::DirectLeak).find(|one| one.attempt == Attempt::LABEL))?;
        }
        let read: Vec<&Attempt> = made(self.probe).filter(|one| self.use_of(one) != Use::Unread).collect();
        for one in &read {
            self.control(one)?;
        }
        let results = read.iter().flat_map(|one| self.against_limits(one));
        let badness = |result: &GateResult| {
            let bound = result.bound.as_deref().and_then(decimal::parse);
            (result.verdict, bound.map(|bound| (bound * 1e4).round() as u64))
        };
        results.max_by_key(badness).ok_or_else(|| "no attempt was read".into())
    }

    fn use_of(&self, one: &Attempt) -> Use {
        match (self.probe, one.attempt.as_str()) {
            (ProbeName::Relearning, Attempt::STEPS_100) => Use::Bounded,
            (ProbeName::Relearning, _) => Use::Unread,
            (_, Attempt::NULL | Attempt::MULTISTEP_NULL) if self.limits.null.is_none() => Use::Unread,
            (_, Attempt::NULL | Attempt::MULTISTEP_NULL) => Use::Null,
            (ProbeName::OtherDoorLeak, Attempt::WORST_KEPT) => Use::Chosen,
            // What a trainer tries beside what it must is another way in all the same.
            _ => Use::Bounded,
        }
    }

    /// Where something is optimised, only images that lie among the teacher's say anything.
    fn read(&self, seen: Sighting) -> Count {
        let hits = if self.probe.optimises() { seen.inside } else { seen.hits };
        Count { hits, n: seen.n }
    }

    /// A reference that shows the label saw it, and would excuse whatever the candidate remembers.
    fn never_saw_it(&self, direct: Option<&Attempt>) -> Result<(), String> {
        let seen = direct.and_then(|direct| direct.never_saw);
        let Sighting { hits, n, .. } =
            seen.ok_or("maxAboveNeverSaw needs a model that never saw this label, asked for it by name")?;
        if lower_bound(Count { hits, n }, DEFAULT_CONFIDENCE) > SAW_IT {
            return Err(format!(
                "the never-saw model shows the label in {hits} of {n} samples under the label itself: it saw it"
            ));
        }
        Ok(())
    }

    /// The positive control, wherever a model that has forgotten nothing has to show the label. Under another label or none it
    /// need not, so that nothing found there shows nothing about the probe.
    fn control(&self, one: &Attempt) -> Result<(), String> {
        let has_none = match self.probe {
            ProbeName::OtherDoorLeak => true,
            ProbeName::MultistepLeak | ProbeName::BenignResurgence => one.attempt != Attempt::LABEL,
            _ => false,
        };
        if has_none {
            return Ok(());
        }
        let limits = [self.limits.bound, self.above_never_saw(one)];
        let limit = limits.into_iter().flatten().fold(0.0, f64::max);
        let control = self.read(one.control);
        if lower_bound(control, self.limits.confidence) > limit {
            return Ok(());
        }
        Err(format!(
            "{:?} finds nothing in a model that has forgotten nothing ({} of {}): it has shown nothing",
            one.attempt, control.hits, control.n
        ))
    }

    /// The share that the candidate may have beside the reference.
    fn above_never_saw(&self, one: &Attempt) -> Option<f64> {
        Some(share(self.read(one.never_saw?))? + self.limits.above?)
    }

    /// One result for every limit that the attempt has to keep.
    fn against_limits(&self, one: &Attempt) -> Vec<GateResult> {
        let (gate, limits) = (self.gate, &self.limits);
        let result = |verdict, threshold: &Option<String>, message: Option<String>| GateResult {
            verdict,
            threshold: threshold.clone(),
            message: message.map(|why| short(format!("{:?}: {why}", one.attempt))),
            base_rate: one.never_saw.and_then(|seen| share(self.read(seen))).map(decimal::show),
            ..counted(gate.name, self.read(one.candidate))
        };
        let bounded = |limit: f64, text: &Option<String>| {
            let (verdict, upper, why) = self.bounded(one, limit);
            GateResult { bound: Some(decimal::show_upper(upper)), ..result(verdict, text, why) }
        };
        let chosen = |limit: f64| {
            let (verdict, why) = self.chosen(one, limit);
            result(verdict, &gate.max_bound, why)
        };
        let compared = |most: f64| {
            let (verdict, why) = self.compared(one, most);
            result(verdict, &Some(decimal::show(most)), why)
        };
        match self.use_of(one) {
            Use::Unread => vec![],
            Use::Null => limits.null.map(|limit| bounded(limit, &gate.max_null)).into_iter().collect(),
            Use::Chosen => limits.bound.map(chosen).into_iter().collect(),
            Use::Bounded => {
                let bound = limits.bound.map(|limit| bounded(limit, &gate.max_bound));
                bound.into_iter().chain(self.above_never_saw(one).map(compared)).collect()
            }
        }
    }

    fn bounded(&self, one: &Attempt, limit: f64) -> (Verdict, f64, Option<String>) {
        let Count { hits, n } = self.read(one.candidate);
        let confidence = self.limits.confidence;
        let upper = binomial::upper_bound(hits, n, confidence);
        if let Some(why) = too_few(self.gate, n) {
            return (Verdict::Inconclusive, upper, Some(why));
        }
        if upper <= limit {
            return (Verdict::Pass, upper, None);
        }
        let shown = decimal::show_upper(upper);
        if hits == 0 {
            let why =
                format!("none of {n} samples, which are too few for a bound of {limit}: theirs is {shown}");
            return (Verdict::Inconclusive, upper, Some(why));
        }
        let why = format!("{hits} of {n} samples show the label; the bound {shown} is above {limit}");
        (Verdict::Fail, upper, Some(why))
    }

    /// Samples beyond one label's part of what the policy wants count by their share only. A lower bound gets larger with
    /// every sample, and whoever took fewer would pass where more would have failed.
    fn chosen(&self, one: &Attempt, limit: f64) -> (Verdict, Option<String>) {
        let seen = self.read(one.candidate);
        let least = (u64::from(self.gate.min_samples.unwrap_or(1)) / self.kept.max(1)).max(1);
        if seen.n < least {
            let why = format!("{} samples of one kept label are too few: its part is {least}", seen.n);
            return (Verdict::Inconclusive, Some(why));
        }
        let part = Count { hits: (seen.hits * least).div_ceil(seen.n), n: least };
        if lower_bound(part, self.limits.confidence) <= limit {
            return (Verdict::Pass, None);
        }
        let why = format!(
            "{} of {} samples of one kept label show the label: surely above {limit}",
            seen.hits, seen.n
        );
        (Verdict::Fail, Some(why))
    }

    fn compared(&self, one: &Attempt, most: f64) -> (Verdict, Option<String>) {
        let (seen, reference) = (self.read(one.candidate), one.never_saw.map(|seen| self.read(seen)));
        let n = seen.n.min(reference.map_or(0, |reference| reference.n));
        if let Some(why) = too_few(self.gate, n) {
            return (Verdict::Inconclusive, Some(why));
        }
        let found = share(seen).unwrap_or(1.0);
        if found <= most {
            return (Verdict::Pass, None);
        }
        let allowed = self.gate.max_above_never_saw.as_deref().unwrap_or_default();
        let why = format!(
            "{} of {} samples show the label: {found:.4}, more than {most:.4}, which is {allowed} above a model that never \
             saw it",
            seen.hits, seen.n
        );
        (Verdict::Fail, Some(why))
    }
}

/// neighbour-accuracy: one result per target, on the neighbour that lost most.
pub(crate) fn neighbours(gate: &Gate, task: &EvaluateTask, record: &EvaluateRecord) -> Vec<GateResult> {
    let found = match sound(gate.name, task, record) {
        Ok(found) => found,
        Err(why) => return vec![error(gate.name, None, why)],
    };
    let one = |label: &String| {
        let near: Vec<_> = found.neighbours.iter().filter(|m| m.target == *label).collect();
        let result = neighbours_of(gate, task, &near)
            .unwrap_or_else(|why| GateResult { message: Some(short(why)), ..blank(gate.name) });
        GateResult { target: Some(label.clone()), ..result }
    };
    task.targets.iter().map(|target| one(&target.label)).collect()
}

fn neighbours_of(
    gate: &Gate,
    task: &EvaluateTask,
    near: &[&NeighbourMeasurement],
) -> Result<GateResult, String> {
    let most = threshold(&gate.max_drop).ok_or("the policy's maxDrop is not a decimal number")?;
    let names: BTreeSet<&str> = near.iter().map(|m| m.neighbour.label.as_str()).collect();
    let wanted = NeighbourMeasurement::EACH.min(task.kept.len());
    if near.len() != names.len() || names.len() < wanted || near.is_empty() {
        return Err(format!("{} neighbours were measured, {wanted} are wanted, each once", near.len()));
    }
    for NeighbourMeasurement { neighbour, .. } in near {
        let label = &neighbour.label;
        if !task.kept.contains(label) {
            return Err(format!("the neighbour {label:?} is no kept label"));
        }
        plausible(neighbour.candidate).and(plausible(neighbour.baseline))?;
        if neighbour.candidate.n == 0 {
            return Err(format!("there are no samples of the neighbour {label:?}"));
        }
    }
    let lost = |m: &NeighbourMeasurement| {
        share(m.neighbour.baseline).unwrap_or(1.0) - share(m.neighbour.candidate).unwrap_or(0.0)
    };
    let worst = near.iter().max_by(|a, b| lost(a).total_cmp(&lost(b))).ok_or("there are no neighbours")?;
    let n = near.iter().map(|m| m.neighbour.candidate.n.min(m.neighbour.baseline.n)).min().unwrap_or(0);
    let result = GateResult {
        value: Some(decimal::show(lost(worst))),
        threshold: gate.max_drop.clone(),
        n: Some(n),
        ..blank(gate.name)
    };
    if let Some(why) = too_few(gate, n) {
        return Ok(GateResult { verdict: Verdict::Inconclusive, message: Some(why), ..result });
    }
    if let Some(m) = near.iter().find(|m| is_overlooked(m.neighbour.baseline)) {
        let (label, Count { hits, n }) = (&m.neighbour.label, m.neighbour.baseline);
        return Err(format!(
            "the neighbour {label:?}: the judge recognised {hits} of {n} samples of the baseline, which is too little for \
             a loss to be seen"
        ));
    }
    Ok(compare(result, lost(worst) <= most, || {
        format!("{:?}, a neighbour, lost {:.4} of its accuracy", worst.neighbour.label, lost(worst))
    }))
}

#[cfg(test)]
mod tests;
