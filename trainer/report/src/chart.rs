//! Line charts as SVG in the page, sized so that their text stays legible on a phone.

use maud::{Markup, html};

use crate::number::{percent, short, thousands};

/// Classes of the series, in order: each has a colour, a dash and a mark of its own.
pub const SERIES: [&str; 4] = ["s0", "s1", "s2", "s3"];
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 38.0;
/// More points are a line without marks.
const MOST_MARKS: usize = 24;
/// Positive values that span more than this are drawn by their logarithms.
const WIDE: f64 = 50.0;

pub struct Chart {
    pub title: String,
    /// What is counted along the bottom.
    pub x: String,
    pub y: Unit,
    /// At most as many as [`SERIES`].
    pub series: Vec<Series>,
}

/// What the values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Shares, from 0 to 100 %.
    WholeShare,
    /// Shares that may all be small.
    Share,
    Plain,
}

pub struct Series {
    pub name: String,
    /// Places along the bottom, ascending, and values. What is not a finite number is left out.
    pub points: Vec<(f64, f64)>,
}

pub fn chart(chart: &Chart) -> Markup {
    let series: Vec<Series> = chart.series.iter().map(finite).collect();
    let frame = Frame::around(&series, chart.y);
    let is_single = series.len() < 2;
    html! {
        figure.chart {
            figcaption {
                strong { (chart.title) }
                @if frame.y.is_log { " " span.soft { "(logarithmic)" } }
                @if !is_single { (legend(&series)) }
            }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(spoken(chart, &series)) {
                (grid(&frame, chart))
                @for (series, class) in series.iter().zip(SERIES) { (line(&frame, series, class)) }
            }
        }
    }
}

fn finite(series: &Series) -> Series {
    let points = series.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite());
    Series { name: series.name.clone(), points: points.collect() }
}

fn legend(series: &[Series]) -> Markup {
    html! {
        ul.legend {
            @for (series, class) in series.iter().zip(SERIES) {
                li {
                    svg viewBox="0 0 24 10" aria-hidden="true" {
                        path class={ "line " (class) } d="M0,5H24" {}
                        (mark(class, 12.0, 5.0))
                    }
                    (series.name)
                }
            }
        }
    }
}

/// The chart for those who cannot see it: where each line begins and ends.
fn spoken(chart: &Chart, series: &[Series]) -> String {
    let one = |series: &Series| match (series.points.first(), series.points.last()) {
        (Some(first), Some(last)) => format!(
            "{}: {} at {} {}, {} at {}",
            series.name,
            show(first.1, chart.y),
            short(first.0),
            chart.x,
            show(last.1, chart.y),
            short(last.0)
        ),
        _ => format!("{}: no values", series.name),
    };
    format!("{}. {}", chart.title, series.iter().map(one).collect::<Vec<_>>().join("; "))
}

fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::WholeShare | Unit::Share => percent(value),
        Unit::Plain => short(value),
    }
}

fn grid(frame: &Frame, chart: &Chart) -> Markup {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    html! {
        @for tick in frame.y.ticks() {
            @let y = frame.y_at(tick);
            path.rule d={ "M" (LEFT) "," (one(y)) "H" (right) } {}
            text.tick x=(LEFT - 6.0) y=(one(y + 4.0)) text-anchor="end" { (label(tick, chart.y)) }
        }
        @for tick in frame.x.ticks() {
            text.tick x=(one(frame.x_at(tick))) y=(bottom + 16.0) text-anchor="middle" {
                @if tick >= 1000.0 { (thousands(tick as u64)) } @else { (short(tick)) }
            }
        }
        text.tick x=(right) y=(HEIGHT - 5.0) text-anchor="end" { (chart.x) }
    }
}

fn label(tick: f64, unit: Unit) -> String {
    match unit {
        Unit::WholeShare | Unit::Share => format!("{} %", short((tick * 1e6).round() / 1e4)),
        Unit::Plain => short(tick),
    }
}

fn line(frame: &Frame, series: &Series, class: &'static str) -> Markup {
    let at = |(x, y): &(f64, f64)| (frame.x_at(*x), frame.y_at(*y));
    let places: Vec<(f64, f64)> = series.points.iter().map(at).collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{},{}", one(*x), one(*y))).collect();
    html! {
        @if !path.is_empty() { path class={ "line " (class) } d={ "M" (path.join("L")) } {} }
        @if places.len() <= MOST_MARKS { @for (x, y) in places { (mark(class, x, y)) } }
    }
}

/// A mark of the series' own form.
fn mark(class: &'static str, x: f64, y: f64) -> Markup {
    let (l, r, t, b) = (x - 3.5, x + 3.5, y - 3.5, y + 3.5);
    let form = match class {
        "s1" => format!("M{},{}H{}V{}H{}Z", one(l), one(t), one(r), one(b), one(l)),
        "s2" => format!("M{},{}L{},{}H{}Z", one(x), one(t), one(r), one(b), one(l)),
        "s3" => format!(
            "M{},{}L{},{}L{},{}L{},{}Z",
            one(x),
            one(t),
            one(r),
            one(y),
            one(x),
            one(b),
            one(l),
            one(y)
        ),
        _ => return html! { circle class={ "mark " (class) } cx=(one(x)) cy=(one(y)) r="3.5" {} },
    };
    html! { path class={ "mark " (class) } d=(form) {} }
}

fn one(number: f64) -> String {
    format!("{number:.1}")
}

/// Where values lie in the picture.
struct Frame {
    x: Scale,
    y: Scale,
}

impl Frame {
    fn around(series: &[Series], unit: Unit) -> Self {
        let all = || series.iter().flat_map(|series| &series.points);
        let y = match unit {
            Unit::WholeShare => Scale { from: 0.0, to: 1.0, is_log: false },
            // Half a per cent at least: rounding is not to look like a mountain.
            Unit::Share => {
                Scale { from: 0.0, ..Scale::around(all().map(|point| point.1).chain([0.0, 0.005])) }
            }
            Unit::Plain => Scale::for_values(all().map(|point| point.1).collect()),
        };
        Self { x: Scale::around(all().map(|point| point.0).chain([0.0])), y }
    }

    fn x_at(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y_at(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    from: f64,
    to: f64,
    is_log: bool,
}

impl Scale {
    /// From the least to the largest value, no further.
    fn tight(values: impl Iterator<Item = f64>) -> Self {
        let (from, to) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        match (from.is_finite(), from < to) {
            (true, true) => Self { from, to, is_log: false },
            (true, false) => Self { from: from - 0.5, to: from + 0.5, is_log: false },
            (false, _) => Self { from: 0.0, to: 1.0, is_log: false },
        }
    }

    /// To round numbers beyond the values.
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let Self { from, to, .. } = Self::tight(values);
        let step = step(to - from);
        Self { from: (from / step).floor() * step, to: (to / step).ceil() * step, is_log: false }
    }

    /// By logarithms if the values ask for it.
    fn for_values(values: Vec<f64>) -> Self {
        let tight = Self::tight(values.iter().copied());
        if tight.from > 0.0 && tight.to / tight.from > WIDE {
            let decade = |value: f64, round: fn(f64) -> f64| 10f64.powf(round(value.log10()));
            return Self {
                from: decade(tight.from, f64::floor),
                to: decade(tight.to, f64::ceil),
                is_log: true,
            };
        }
        Self::around(values.into_iter())
    }

    /// How far along `value` lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value.ln() - self.from.ln()) / (self.to.ln() - self.from.ln()),
            false => (value - self.from) / (self.to - self.from),
        };
        share.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let (from, to) = (self.from.log10().round() as i32, self.to.log10().round() as i32);
            let each = ((to - from) / 5 + 1) as usize;
            return (from..=to).step_by(each).map(|power| 10f64.powi(power)).collect();
        }
        let step = step(self.to - self.from);
        let (first, last) = ((self.from / step).ceil() as i64, (self.to / step + 1e-9).floor() as i64);
        (first..=last).map(|index| index as f64 * step).collect()
    }
}

/// A round number that goes into `span` about four times.
fn step(span: f64) -> f64 {
    let rough = (span / 4.0).max(1e-12);
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(unit: Unit, points: &[(f64, f64)]) -> Chart {
        let series = vec![Series { name: "a <b>".into(), points: points.to_vec() }];
        Chart { title: "loss & leak".into(), x: "steps".into(), y: unit, series }
    }

    #[test]
    fn ticks_are_round_and_lie_within() {
        let scale = Scale::around([0.013, 0.94].into_iter());
        let ticks: Vec<String> = scale.ticks().into_iter().map(short).collect();
        assert_eq!(ticks, ["0", "0.5", "1"]);
        let tight = Scale::tight([0.0, 2000.0].into_iter());
        assert_eq!(tight.ticks(), [0.0, 500.0, 1000.0, 1500.0, 2000.0]);
    }

    #[test]
    fn values_of_many_sizes_are_drawn_by_their_logarithms() {
        let wide = Scale::for_values(vec![0.02, 3.0, 700.0]);
        assert!(wide.is_log && wide.from == 0.01 && wide.to == 1000.0, "{wide:?}");
        assert_eq!(wide.ticks(), [0.01, 1.0, 100.0]);
        assert!(!Scale::for_values(vec![-0.02, 700.0]).is_log, "there is no logarithm of what is negative");
    }

    #[test]
    fn a_chart_says_in_words_where_its_lines_begin_and_end() {
        let svg = chart(&of(Unit::WholeShare, &[(0.0, 0.99), (100.0, 0.004)])).into_string();
        assert!(
            svg.contains("99.0\u{a0}% at 0 steps, 0.4\u{a0}% at 100") && svg.contains("loss &amp; leak"),
            "{svg}"
        );
        assert!(!svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn every_point_lies_in_the_frame_whatever_it_is() {
        for points in [
            &[][..],
            &[(5.0, 5.0)],
            &[(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 1.0)],
            &[(0.0, -1e300), (1e300, 1e300)],
            &[(1.0, 0.0), (2.0, 0.0)],
            &[(1.0, 1e-300), (2.0, 1e300)],
        ] {
            for unit in [Unit::WholeShare, Unit::Share, Unit::Plain] {
                let svg = chart(&of(unit, points)).into_string();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?} {unit:?}: {svg}");
            }
        }
    }
}
