//! Every way in which one field of a JSON document can break its schema.

use serde_json::{Map, Value, json};

/// A document that is wrong in one place.
#[derive(Debug)]
pub struct Broken {
    /// What was done, and where.
    pub what: String,
    /// The name of the field that is wrong, or of the one that holds it.
    pub field: String,
    pub document: Value,
}

/// Breaks `valid` at every field and in every way that `schema` forbids: another type, out of its range, too short, too long,
/// too few or too many, another word, an unknown field beside it, itself missing.
pub fn broken(schema: &Value, valid: &Value) -> Vec<Broken> {
    let mut found = Vec::new();
    let walk = Walk { root: schema, valid };
    walk.visit(schema, &mut Vec::new(), &mut found);
    found
}

struct Walk<'a> {
    root: &'a Value,
    valid: &'a Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Walk<'_> {
    fn visit(&self, schema: &Value, path: &mut Vec<Step>, found: &mut Vec<Broken>) {
        let here = at(self.valid, path);
        let schema = self.resolve(schema, here);
        for (how, value) in wrong_values(&schema, here) {
            found.push(self.with(path, how, value));
        }
        match here {
            Value::Object(fields) => self.visit_object(&schema, fields, path, found),
            Value::Array(items) => {
                for index in 0..items.len() {
                    path.push(Step::Index(index));
                    self.visit(&schema["items"], path, found);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    fn visit_object(
        &self,
        schema: &Value,
        fields: &Map<String, Value>,
        path: &mut Vec<Step>,
        found: &mut Vec<Broken>,
    ) {
        let is_required =
            |name: &str| schema["required"].as_array().is_some_and(|all| all.contains(&json!(name)));
        for name in fields.keys() {
            if is_required(name) {
                let mut rest = fields.clone();
                rest.remove(name);
                let mut broken = self.with(path, format!("without {name}"), rest.into());
                broken.field = name.clone();
                found.push(broken);
            }
            let property = match &schema["properties"][name] {
                Value::Null => &schema["additionalProperties"],
                property => property,
            };
            path.push(Step::Key(name.clone()));
            self.visit(property, path, found);
            path.pop();
        }
        if schema["additionalProperties"] == json!(false) {
            let mut more = fields.clone();
            more.insert("unheard".into(), json!(1));
            let mut broken = self.with(path, "with a field unheard of".into(), more.into());
            broken.field = "unheard".into();
            found.push(broken);
        }
    }

    fn with(&self, path: &[Step], how: String, value: Value) -> Broken {
        let mut document = self.valid.clone();
        *at_mut(&mut document, path) = value;
        let key = path.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.clone()),
            Step::Index(_) => None,
        });
        Broken { what: format!("{} {how}", pointer(path)), field: key.unwrap_or_default(), document }
    }

    /// The schema of what is here: behind references, and of several the one whose words it uses.
    fn resolve(&self, schema: &Value, here: &Value) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let definition = self.root.pointer(reference.trim_start_matches('#')).expect("a definition");
            return self.resolve(definition, here);
        }
        let one_of = ["oneOf", "anyOf"].iter().find_map(|key| schema[*key].as_array());
        let Some(one_of) = one_of else { return schema.clone() };
        let choices = one_of.iter().map(|choice| self.resolve(choice, here));
        let mut chosen = choices.filter(|choice| is_about(choice, here));
        let mut chosen = chosen.next().unwrap_or_else(|| panic!("no choice of {schema} is about {here}"));
        // Of an enumeration with a description for each word, every word is a choice.
        let words: Vec<Value> = one_of.iter().filter_map(|choice| choice.get("const").cloned()).collect();
        if words.len() == one_of.len() {
            chosen["enum"] = words.into();
        }
        if one_of.iter().any(|choice| choice["type"] == "null") {
            chosen["type"] = json!([chosen["type"], "null"]);
        }
        // A reference beside other keywords, as of an internally tagged enumeration.
        merge(&mut chosen, schema);
        chosen
    }
}

/// Whether a choice's constants are those that are here, and its type is.
fn is_about(choice: &Value, here: &Value) -> bool {
    let constants = choice["properties"].as_object().into_iter().flatten();
    let mut constants = constants.filter_map(|(name, property)| Some((name, property.get("const")?)));
    let is_word = choice.get("enum").and_then(Value::as_array).is_none_or(|words| words.contains(here))
        && choice.get("const").is_none_or(|word| word == here);
    is_word && is_of_type(choice, here) && constants.all(|(name, constant)| here[name] == *constant)
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        if !["oneOf", "anyOf", "$ref"].contains(&key.as_str()) && into.get(key).is_none() {
            into[key] = value.clone();
        }
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    let types = types(schema);
    let is = |type_: &str| types.is_empty() || types.contains(&type_);
    match value {
        Value::Null => is("null"),
        Value::Bool(_) => is("boolean"),
        Value::Number(number) => is("number") || (is("integer") && !number.is_f64()),
        Value::String(_) => is("string"),
        Value::Array(_) => is("array"),
        Value::Object(_) => is("object"),
    }
}

fn wrong_values(schema: &Value, here: &Value) -> Vec<(String, Value)> {
    let any = [Value::Null, json!(true), json!(7), json!(0.5), json!("word"), json!([]), json!({})];
    let mut wrong: Vec<(String, Value)> = any
        .into_iter()
        .filter(|value| !is_of_type(schema, value))
        .map(|value| (format!("is {value}"), value))
        .collect();
    match here {
        Value::Number(_) => wrong.extend(out_of_range(schema).map(|value| (format!("is {value}"), value))),
        Value::String(text) => wrong.extend(wrong_words(schema, text)),
        Value::Array(items) => wrong.extend(wrong_lengths(schema, items)),
        _ => {}
    }
    wrong
}

fn out_of_range(schema: &Value) -> impl Iterator<Item = Value> {
    let least = schema["minimum"].as_i64().map(|least| json!(least - 1));
    let most = schema["maximum"].as_u64().map(|most| json!(most + 1));
    let is_integer = types(schema).contains(&"integer");
    let never = is_integer
        .then(|| [json!(-1), json!(1e300), serde_json::from_str("99999999999999999999").expect("a number")]);
    least.into_iter().chain(most).chain(never.into_iter().flatten())
}

fn wrong_words(schema: &Value, text: &str) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    let is_word = schema.get("enum").is_some() || schema.get("const").is_some();
    if is_word {
        wrong.push(("is another word".into(), json!(format!("{text}x"))));
    }
    if schema["minLength"].as_u64().is_some_and(|least| least > 0) {
        wrong.push(("is empty".into(), json!("")));
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        wrong.push(("is too long".into(), json!("a".repeat(most as usize + 1))));
    }
    if schema.get("pattern").is_some() {
        for other in ["", "\n", "no such form", &text[1..], &format!("{text}\n{text} ")] {
            // A free pattern may take the last.
            let is_free = schema["pattern"].as_str().is_some_and(|pattern| pattern.ends_with(".+$"));
            if !(is_free && (other.starts_with(text) || other == &text[1..])) {
                wrong.push((format!("is {other:?}"), json!(other)));
            }
        }
    }
    wrong
}

fn wrong_lengths(schema: &Value, items: &[Value]) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    if schema["minItems"].as_u64().is_some_and(|least| least > 0) {
        wrong.push(("is empty".into(), json!([])));
    }
    if let (Some(most), Some(item)) = (schema["maxItems"].as_u64(), items.first()) {
        let many: Vec<Value> = (0..=most).map(|index| numbered(item, index)).collect();
        wrong.push(("has too many".into(), many.into()));
    }
    wrong
}

/// The item, made different from the others by its strings.
fn numbered(item: &Value, index: u64) -> Value {
    match item {
        Value::String(text) => json!(format!("{text}{index}")),
        Value::Object(fields) if fields.contains_key("label") => {
            let mut fields = fields.clone();
            fields.insert("label".into(), json!(format!("label {index}")));
            fields.into()
        }
        other => other.clone(),
    }
}

fn at<'a>(document: &'a Value, path: &[Step]) -> &'a Value {
    path.iter().fold(document, |value, step| match step {
        Step::Key(key) => &value[key],
        Step::Index(index) => &value[index],
    })
}

fn at_mut<'a>(document: &'a mut Value, path: &[Step]) -> &'a mut Value {
    path.iter().fold(document, |value, step| match step {
        Step::Key(key) => &mut value[key],
        Step::Index(index) => &mut value[index],
    })
}

fn pointer(path: &[Step]) -> String {
    let step = |step: &Step| match step {
        Step::Key(key) => format!("/{key}"),
        Step::Index(index) => format!("/{index}"),
    };
    path.iter().map(step).collect()
}
