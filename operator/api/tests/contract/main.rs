//! What the schemas in `docs/contract` forbid is refused, field by field, in one line that names the field.

mod command_line;
mod documents;
mod fields;

use lethe_api::contract::{Digest, MAX_LABEL_BYTES, MAX_LABELS, Manifest, Outcome, Plan, Record, Statement};
use schemars::{JsonSchema, schema_for};
use serde_json::{Value, json};

/// Everything that is wrong with the documents of a type has to be refused by whoever reads it.
fn assert_refused<T: JsonSchema>(valid: &[Value], read: impl Fn(&[u8]) -> Result<(), String>) {
    let schema = serde_json::to_value(schema_for!(T)).unwrap();
    let mut taken = Vec::new();
    for document in valid {
        read(document.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {document}"));
        let broken = fields::broken(&schema, document);
        assert!(broken.len() > 50, "the walk found too little: {}", broken.len());
        for fields::Broken { what, field, document } in broken {
            match read(document.to_string().as_bytes()) {
                Ok(()) => taken.push(what),
                Err(error) => {
                    let is_line = !error.contains(char::is_control) && error.len() < 1000;
                    let says_where = error.contains(&field);
                    if !is_line || !says_where {
                        taken.push(format!(
                            "{what}: the message does not name {field:?} in one line: {error}"
                        ));
                    }
                }
            }
        }
    }
    assert!(taken.is_empty(), "{} are taken, or badly refused:\n{}", taken.len(), taken.join("\n"));
}

#[test]
fn a_plan_is_refused_at_every_field() {
    let read = |bytes: &[u8]| Plan::parse(bytes).map(drop).map_err(|error| error.to_string());
    assert_refused::<Plan>(&documents::plans(), read);
}

#[test]
fn an_outcome_is_refused_at_every_field() {
    let plan = Digest::of(b"plan");
    let read = |bytes: &[u8]| {
        let text = str::from_utf8(bytes).unwrap();
        Outcome::parse(text, &plan).map(drop).map_err(|error| error.to_string())
    };
    assert_refused::<Outcome>(&documents::outcomes(), read);
}

#[test]
fn a_record_is_refused_at_every_field() {
    let plan = Digest::of(b"plan");
    let read = |bytes: &[u8]| Record::parse(bytes, &plan).map(drop).map_err(|error| error.to_string());
    assert_refused::<Record>(&documents::records(), read);
}

#[test]
fn a_manifest_is_refused_at_every_field() {
    assert_refused::<Manifest>(&[documents::manifest()], |bytes| Manifest::parse(bytes).map(drop));
}

#[test]
fn a_statement_is_refused_at_every_field() {
    assert_refused::<Statement>(&[documents::statement()], |bytes| Statement::parse(bytes).map(drop));
    let field = |pointer: &str, value: Value| {
        let mut statement = documents::statement();
        *statement.pointer_mut(pointer).unwrap() = value;
        Statement::parse(statement.to_string().as_bytes()).unwrap_err()
    };
    assert!(field("/_type", json!("https://in-toto.io/Statement/v0.1")).contains("its _type is"));
    assert!(
        field("/predicateType", json!("https://slsa.dev/provenance/v1")).contains("its predicateType is")
    );
    assert!(field("/subject/0/name", json!("model.safetensors")).contains("its subject.name is"));
    assert!(field("/subject", json!([])).contains("its subject has 0 entries"));
    for bad in [json!({}), json!({"sha512": "aa"}), json!({"sha256": "AA"}), json!({"sha256": "../.."})] {
        assert!(field("/subject/0/digest", bad).contains("its subject.digest is not"));
    }
}

#[test]
fn the_record_of_as_many_labels_as_there_may_be_is_read() {
    let names: Vec<String> = (0..MAX_LABELS).map(|index| format!("{index:0>MAX_LABEL_BYTES$}")).collect();
    let mut record = documents::records().swap_remove(0);
    let body = &mut record["body"];
    body["labels"] = json!(names);
    body["baselineAccuracy"] = json!(vec![json!({"hits": 400, "n": 400}); MAX_LABELS]);
    body["confusion"] = json!(vec![vec![0.000_977; MAX_LABELS]; MAX_LABELS]);
    Record::parse(record.to_string().as_bytes(), &Digest::of(b"plan")).unwrap();
}

#[test]
fn the_plan_of_as_many_labels_as_there_may_be_is_read() {
    let name = |index: usize| format!("{index:0>MAX_LABEL_BYTES$}");
    let target = |index| json!({"label": name(index), "override": {"strategy": "Fixed", "label": name(0)}});
    for mut plan in documents::plans().into_iter().skip(1) {
        plan["task"]["targets"] = (1..MAX_LABELS).map(target).collect();
        plan["task"]["kept"] = json!([name(0)]);
        Plan::parse(plan.to_string().as_bytes()).unwrap();
    }
}

#[test]
fn an_error_is_one_line_whatever_it_quotes() {
    let plan = documents::plans().swap_remove(0).to_string();
    let typo = format!("a\nb\u{1b}[31m{}", "x".repeat(10_000));
    let typo = plan.replacen("\"seed\"", &format!("{}:1,\"seed\"", json!(typo)), 1);
    let error = Plan::parse(typo.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("a\\nb") && !error.contains(char::is_control) && error.len() < 600, "{error}");
}
