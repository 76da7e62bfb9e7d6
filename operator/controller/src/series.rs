//! Gauges as Prometheus reads them, written while objects are looked through. Of ten thousand objects a registry would hold each
//! value by its labels, and again to be sent, before any of it is text: tens of megabytes, nearly all of it labels.

use std::fmt::Write;

/// A gauge with `N` labels, and what there is of it in one scrape.
pub struct Family<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    /// Places of the labels, by their names: so they are written.
    order: [usize; N],
    lines: String,
}

impl<const N: usize> Family<N> {
    pub fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        let mut order = std::array::from_fn(|place| place);
        order.sort_by_key(|&place: &usize| labels[place]);
        Self { name, help, labels, order, lines: String::new() }
    }

    /// A series with these values of the labels, in the order in which the labels were given. **Once for each**: Prometheus
    /// takes a scrape with the same series twice for broken.
    pub fn add(&mut self, values: [&str; N], value: f64) {
        self.lines.push_str(self.name);
        for (nth, &place) in self.order.iter().enumerate() {
            self.lines.push(if nth == 0 { '{' } else { ',' });
            self.lines.push_str(self.labels[place]);
            self.lines.push_str("=\"");
            values[place].chars().for_each(|c| escape(c, &mut self.lines));
            self.lines.push('"');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "}} {value}");
    }

    /// In the text format of Prometheus; nothing if there is nothing of it.
    pub fn write_to(self, text: &mut String) {
        let Self { name, help, lines, .. } = self;
        if !lines.is_empty() {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{lines}");
        }
    }
}

fn escape(c: char, into: &mut String) {
    match c {
        '\\' => into.push_str("\\\\"),
        '"' => into.push_str("\\\""),
        '\n' => into.push_str("\\n"),
        c => into.push(c),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, GaugeVec, Opts, TextEncoder, core::Collector};

    use super::*;

    const LABELS: [&str; 3] = ["namespace", "model", "gate"];

    #[test]
    fn what_is_written_is_what_a_registry_would_have_written() {
        let (name, help) = ("lethe_gate_bound", "What the verdict rests on.");
        let mut family = Family::new(name, help, LABELS);
        let registered = GaugeVec::new(Opts::new(name, help), &LABELS).unwrap();
        let odd = "a \"quoted\" \\ name\nof two lines, é";
        for (values, value) in [
            (["studio", "digits", "direct-leak"], 0.0021),
            (["studio", odd, "hygiene"], 1.),
            (["studio", "faces", "hygiene"], 1_797_757_200.),
            (["", "voices", "hygiene"], f64::NAN),
        ] {
            family.add(values, value);
            registered.with_label_values(&values).set(value);
        }
        let (mut ours, mut theirs) = (String::new(), Vec::new());
        family.write_to(&mut ours);
        TextEncoder::new().encode(&registered.collect(), &mut theirs).unwrap();
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours), sorted(&String::from_utf8(theirs).unwrap()));
        assert!(ours.starts_with("# HELP"), "{ours}");
    }

    #[test]
    fn of_a_gauge_without_a_series_nothing_is_said() {
        let mut text = String::new();
        Family::new("lethe_gate_bound", "What the verdict rests on.", LABELS).write_to(&mut text);
        assert_eq!(text, "");
    }
}
