//! A good record from which any one thing is taken away: it cannot be read, or it does not pass.

use serde_json::Value;

use super::*;

/// Where each thing in a value lies: every field of an object and every item of a list.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let mut add = |key: &str, inner: &Value| {
        let place = format!("{at}/{key}");
        places(inner, &place, all);
        all.push(place);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, inner)| add(key, inner)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, inner)| add(&n.to_string(), inner)),
        _ => {}
    }
}

fn without(whole: &Value, place: &str) -> Value {
    let mut less = whole.clone();
    let (parent, key) = place.rsplit_once('/').unwrap();
    match less.pointer_mut(parent).unwrap() {
        Value::Array(items) => drop(items.remove(key.parse().unwrap())),
        fields => drop(fields.as_object_mut().unwrap().remove(key)),
    }
    less
}

fn verdict(record: Value) -> Option<Verdict> {
    let record: EvaluateRecord = serde_json::from_value(record).ok()?;
    Some(overall(&judge(&thorough(), &asked(), &prepared(), &record)))
}

/// What is told beside a measurement, and decides nothing.
fn is_told(place: &str) -> bool {
    ["/seeds", "/shots", "/restarts", "/detail"].iter().any(|told| place.contains(told))
}

#[test]
fn what_lacks_anything_that_was_measured_never_passes() {
    let whole = serde_json::to_value(found()).unwrap();
    assert_eq!(verdict(whole.clone()), Some(Verdict::Pass));
    let mut all = vec![];
    places(&whole, "", &mut all);
    let (mut unread, mut refused) = (0, 0);
    for place in all.iter().filter(|place| !is_told(place)) {
        match verdict(without(&whole, place)) {
            None => unread += 1,
            Some(Verdict::Pass) => panic!("it passes without {place}"),
            Some(_) => refused += 1,
        }
    }
    assert!(unread > 500 && refused > 50, "{unread} cannot be read, {refused} do not pass");
}

/// None of anything that is counted. Of fewer than the policy wants, others say what becomes of them.
#[test]
fn what_was_asked_of_nobody_never_passes() {
    let whole = serde_json::to_value(found()).unwrap();
    let mut all = vec![];
    places(&whole, "", &mut all);
    // The base rate is there to be compared with, the most common label for overrides that are random, and at a target, whose
    // samples are of another label, recall says nothing.
    let is_read = |place: &&String| {
        let of_target = place.contains("/fidelity/") && !place.contains("/0/") && place.contains("/recall");
        !of_target && !place.contains("/baseRate") && !place.contains("/mostCommon")
    };
    let counts: Vec<_> = all.iter().filter(|it| it.ends_with("/n") && is_read(it)).collect();
    assert!(counts.len() > 100, "{} counts", counts.len());
    let mut passing = vec![];
    for place in counts {
        let mut none = whole.clone();
        let count = none.pointer_mut(place.strip_suffix("/n").unwrap()).unwrap();
        for field in ["hits", "inside", "n"] {
            if let Some(number) = count.get_mut(field) {
                *number = 0.into();
            }
        }
        if verdict(none) == Some(Verdict::Pass) {
            passing.push(place);
        }
    }
    assert!(passing.is_empty(), "it passes with nothing at {passing:#?}");
}
