//! A value checked by a structural schema: what the API server refuses, in its words. The keywords are those that the
//! definitions of this version use; a test sees to that.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map, Value};

use crate::yaml::{Step, written};

use super::rules;

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub path: Vec<Step>,
    pub message: String,
}

impl Fault {
    pub fn new(path: Vec<Step>, message: String) -> Self {
        Self { path, message }
    }
}

/// Every keyword that is looked at, or says nothing about values.
#[cfg(test)]
pub const KEYWORDS: [&str; 25] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "nullable",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "x-kubernetes-embedded-resource",
];

/// Checks a value, and puts defaults into it. What a part of a manifest lacks is no fault.
pub fn check(value: &mut Value, schema: &Value, is_part: bool) -> Vec<Fault> {
    let mut walk = Walk { is_part, path: Vec::new(), faults: Vec::new(), patterns: HashMap::new() };
    walk.value(value, schema);
    walk.faults
}

struct Walk {
    is_part: bool,
    path: Vec<Step>,
    faults: Vec<Fault>,
    patterns: HashMap<String, Option<Regex>>,
}

impl Walk {
    fn value(&mut self, value: &mut Value, schema: &Value) {
        let before = self.faults.len();
        if !self.has_type(value, schema) {
            return;
        }
        match value {
            Value::Object(fields) => self.object(fields, schema),
            Value::Array(items) => self.list(items, schema),
            Value::String(text) => self.text(text, schema),
            Value::Number(number) => self.number(number, schema),
            Value::Bool(_) | Value::Null => {}
        }
        if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
            let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
            self.fault(format!("Unsupported value: {value}: supported values: {}", allowed.join(", ")));
        }
        // A rule reads what is there: where that is wrong, so is what the rule would say. A part has not all of it.
        if self.faults.len() == before && !self.is_part {
            for message in rules::broken(schema, value) {
                self.fault(format!("Invalid value: {message}"));
            }
        }
    }

    fn has_type(&mut self, value: &Value, schema: &Value) -> bool {
        if schema["x-kubernetes-int-or-string"] == true {
            let fits = value.is_string() || value.is_i64() || value.is_u64();
            if !fits {
                self.mistyped("integer,string", value);
            }
            return fits;
        }
        let Some(wanted) = schema["type"].as_str() else { return true };
        let found = type_of(value);
        let fits = found == wanted || (wanted == "number" && found == "integer");
        if !fits {
            self.mistyped(wanted, value);
        }
        fits
    }

    fn mistyped(&mut self, wanted: &str, value: &Value) {
        let (at, found) = (written(&self.path), type_of(value));
        self.fault(format!("Invalid value: {found:?}: {at} in body must be of type {wanted}: {found:?}"));
    }

    fn object(&mut self, fields: &mut Map<String, Value>, schema: &Value) {
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            return;
        }
        // As the API server does: a null that may not be there is as if it were not, and then comes the default.
        let known = schema["properties"].as_object();
        fields.retain(|name, value| {
            !value.is_null()
                || known.is_none_or(|known| known.get(name).is_none_or(|s| s["nullable"] == true))
        });
        for (name, schema) in known.into_iter().flatten() {
            if let Some(default) = schema.get("default").filter(|_| !fields.contains_key(name)) {
                fields.insert(name.clone(), default.clone());
            }
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        for name in required {
            if !fields.contains_key(name) && !self.is_part {
                self.at(Step::Field(name.into()), |walk| walk.fault("Required value".into()));
            }
        }
        let others = &schema["additionalProperties"];
        for (name, value) in fields.iter_mut() {
            let schema = known.and_then(|known| known.get(name)).or(others.is_object().then_some(others));
            self.at(Step::Field(name.clone()), |walk| match schema {
                Some(schema) => walk.value(value, schema),
                None => {
                    let path = written(&walk.path);
                    walk.fault(format!("unknown field {path:?}"));
                }
            });
        }
    }

    fn list(&mut self, items: &mut [Value], schema: &Value) {
        let (at, n) = (written(&self.path), items.len() as u64);
        if let Some(least) = schema["minItems"].as_u64().filter(|least| n < *least) {
            self.fault(format!("Invalid value: {n}: {at} in body should have at least {least} items"));
        }
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| n > *most) {
            self.fault(format!("Too many: {n}: must have at most {most} items"));
        }
        for (index, item) in items.iter_mut().enumerate() {
            self.at(Step::Index(index), |walk| walk.value(item, &schema["items"]));
        }
        let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array();
                keys.into_iter().flatten().filter_map(Value::as_str).collect()
            }
            _ => return,
        };
        let key = |item: &Value| -> Map<String, Value> {
            keys.iter().filter_map(|key| Some(((*key).to_owned(), item.get(*key)?.clone()))).collect()
        };
        for index in 1..items.len() {
            let this = key(&items[index]);
            if items[..index].iter().any(|earlier| key(earlier) == this) {
                let this = Value::Object(this);
                self.at(Step::Index(index), |walk| walk.fault(format!("Duplicate value: {this}")));
            }
        }
    }

    /// Of what is wrong with a text, the API server says the first.
    fn text(&mut self, text: &str, schema: &Value) {
        let (at, n) = (written(&self.path), text.chars().count() as u64);
        let pattern = schema["pattern"].as_str();
        if let Some(most) = schema["maxLength"].as_u64().filter(|most| n > *most) {
            self.fault(format!("Too long: may not be more than {most} bytes"));
        } else if let Some(least) = schema["minLength"].as_u64().filter(|least| n < *least) {
            self.fault(format!(
                "Invalid value: {text:?}: {at} in body should be at least {least} chars long"
            ));
        } else if let Some(pattern) = pattern.filter(|pattern| !self.matches(pattern, text)) {
            self.fault(format!("Invalid value: {text:?}: {at} in body should match '{pattern}'"));
        }
        let is_time = schema["format"] == "date-time";
        if is_time && text.parse::<jiff::Timestamp>().is_err() {
            self.fault(format!("Invalid value: {text:?}: {at} in body must be of type date-time: {text:?}"));
        }
    }

    fn matches(&mut self, pattern: &str, text: &str) -> bool {
        let known = self.patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        known.as_ref().is_some_and(|pattern| pattern.is_match(text))
    }

    fn number(&mut self, number: &serde_json::Number, schema: &Value) {
        let at = written(&self.path);
        let value = number.as_f64().unwrap_or(f64::NAN);
        if let Some(least) = schema["minimum"].as_f64().filter(|least| value < *least) {
            let words = "should be greater than or equal to";
            self.fault(format!("Invalid value: {number}: {at} in body {words} {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| value > *most) {
            let words = "should be less than or equal to";
            self.fault(format!("Invalid value: {number}: {at} in body {words} {most}"));
        }
    }

    fn at(&mut self, step: Step, look: impl FnOnce(&mut Self)) {
        self.path.push(step);
        look(self);
        self.path.pop();
    }

    fn fault(&mut self, message: String) {
        self.faults.push(Fault::new(self.path.clone(), message));
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
