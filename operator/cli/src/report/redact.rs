//! What is taken out of objects and logs before they leave: people, the references that lead to them, secrets.
//!
//! A name becomes the same stand-in everywhere in one bundle, so that one can still see who is who. The stand-ins of another
//! bundle are others: a short reference cannot be found by trying.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
};

use lethe_api::{
    Digest,
    v1alpha1::{UnlearnApproval, UnlearnRequest, annotations},
};
use lethe_core::asked;
use regex::Regex;
use serde_json::Value;

/// What stands in place of a value.
pub const LEFT_OUT: &str = "(left out)";

/// Annotations that say something about Lethe or a roll-out, and nothing else.
const ANNOTATIONS: [&str; 2] = ["lethe.dev/", "deployment.kubernetes.io/"];

/// Names and what stands for them.
pub struct Redaction {
    /// Of this bundle, and kept nowhere.
    salt: String,
    names: BTreeMap<String, String>,
    /// Reasons that people gave, which messages repeat.
    typed: BTreeSet<String>,
    /// Words of `retry` and `abort`, which messages repeat in brackets.
    asked: BTreeSet<String>,
    secrets: [Regex; 3],
}

impl Default for Redaction {
    fn default() -> Self {
        Self::new()
    }
}

impl Redaction {
    /// # Panics
    /// Never: the patterns are constants that a test compiles.
    pub fn new() -> Self {
        // The keys of these hashers come from the system's source of random numbers.
        let salt =
            [(); 4].map(|()| RandomState::new().hash_one(0_u8)).map(|word| format!("{word:016x}")).concat();
        let pattern = |text: &str| Regex::new(text).expect("a constant pattern");
        let secrets = [
            pattern(r"(?i)(bearer\s+)[a-z0-9._~+/=-]+"),
            pattern(r"(://)[^/@\s]+@"),
            pattern(r"(?i)((?:password|passwd|secret|token|api-?key|access-?key)[a-z_-]*\s*[=:]\s*)\S+"),
        ];
        Self { salt, names: BTreeMap::new(), typed: BTreeSet::new(), asked: BTreeSet::new(), secrets }
    }

    /// Whoever and whatever is named in these objects gets a stand-in.
    pub fn learn(&mut self, requests: &[UnlearnRequest], approvals: &[UnlearnApproval]) {
        for request in requests {
            if let Some(subject) = &request.spec.data_subject_request {
                self.stand_in("subject", &subject.reference);
            }
            if let Some(name) = &request.spec.requested_by {
                self.stand_in("person", name);
            }
            for name in request.status.iter().flat_map(|status| &status.approved_by) {
                self.stand_in("person", name);
            }
            if let Some(extension) =
                request.spec.data_subject_request.as_ref().and_then(|it| it.extension.as_ref())
            {
                self.typed.insert(extension.reason.clone());
            }
            let typed = annotations::ASKED.iter().filter_map(|annotation| asked::word(request, annotation));
            let heard = request.status.iter().flat_map(|status| [&status.retry, &status.abort]);
            let heard = heard.flatten().map(|acknowledged| acknowledged.token.clone());
            self.asked.extend(typed.chain(heard));
        }
        for approval in approvals {
            self.stand_in("person", &approval.spec.approver);
            self.typed.insert(approval.spec.reason.clone());
        }
    }

    /// How many names have a stand-in.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    fn stand_in(&mut self, what: &str, name: &str) -> String {
        let salt = &self.salt;
        let made = || format!("{what}-{}", &Digest::of(format!("{salt}\n{name}")).hex()[..8]);
        self.names.entry(name.to_owned()).or_insert_with(made).clone()
    }

    /// An object as it may be shown.
    pub fn object(&mut self, value: &mut Value) {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            for (name, text) in
                metadata.get_mut("annotations").and_then(Value::as_object_mut).into_iter().flatten()
            {
                let is_asked = annotations::ASKED.contains(&name.as_str());
                if is_asked || !ANNOTATIONS.iter().any(|known| name.starts_with(known)) {
                    *text = LEFT_OUT.into();
                }
            }
        }
        if value["kind"] == "UnlearnApproval" {
            shorten(&mut value["spec"], "reason");
        }
        self.walk(value);
    }

    fn walk(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item)),
            Value::Object(fields) => {
                for (name, value) in fields.iter_mut() {
                    match (name.as_str(), value) {
                        ("env", Value::Array(variables)) => {
                            for variable in
                                variables.iter_mut().filter(|variable| variable.get("value").is_some())
                            {
                                variable["value"] = LEFT_OUT.into();
                            }
                        }
                        ("dataSubjectRequest", subject) => self.subject(subject),
                        ("retry" | "abort", Value::Object(said)) if said.contains_key("token") => {
                            said.insert("token".into(), LEFT_OUT.into());
                            said.values_mut().for_each(|value| self.walk(value));
                        }
                        // What a person typed: who is named in it, nobody knows.
                        ("last-applied-configuration", value) => *value = LEFT_OUT.into(),
                        (_, value) => self.walk(value),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn subject(&mut self, subject: &mut Value) {
        if let Some(reference) = subject["reference"].as_str().map(str::to_owned) {
            subject["reference"] = self.stand_in("subject", &reference).into();
        }
        if let Some(extension) = subject.get_mut("extension") {
            shorten(extension, "reason");
        }
    }

    /// A text without the names that are known, and without what looks like a secret.
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        // A shorter one names nobody, and stands in many words.
        for reason in self.typed.iter().filter(|reason| reason.chars().count() > 3) {
            text = replace_word(&text, reason, LEFT_OUT);
        }
        for word in &self.asked {
            text = text.replace(&format!("({word})"), LEFT_OUT);
        }
        // The longest first: one name may be a part of another.
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, stand_in) in names {
            text = replace_word(&text, name, stand_in);
        }
        for pattern in &self.secrets {
            let with =
                if pattern.as_str().starts_with("(://)") { "${1}(left out)@" } else { "${1}(left out)" };
            text = pattern.replace_all(&text, with).into_owned();
        }
        text
    }
}

/// A text that somebody wrote freely: how long it was is all that is kept.
fn shorten(object: &mut Value, field: &str) {
    if let Some(text) = object.get(field).and_then(Value::as_str) {
        object[field] = format!("({} characters left out)", text.chars().count()).into();
    }
}

/// Replaces a name where it stands alone, not as a part of a longer word.
fn replace_word(text: &str, name: &str, with: &str) -> String {
    if name.is_empty() || !text.contains(name) {
        return text.to_owned();
    }
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        out += before;
        let inside = is_word(out.chars().last()) || is_word(after.chars().next());
        out += if inside { name } else { with };
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request() -> Value {
        json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
            "metadata": {
                "name": "forget-three", "managedFields": [{"manager": "kubectl"}],
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{\"reference\":\"DSR-2026-0042\"}",
                    "lethe.dev/retry": "as Erin said", "example.org/owner": "Alice Doe",
                },
            },
            "spec": {
                "modelRef": {"name": "digits"}, "targets": [{"label": "3"}],
                "override": {"strategy": "Fixed", "label": "8"}, "requestedBy": "alice@example.org",
                "dataSubjectRequest": {
                    "reference": "DSR-2026-0042", "receivedAt": "2026-11-20T09:00:00Z", "regulation": "GDPR",
                    "extension": {"informedAt": "2026-11-21T09:00:00Z", "reason": "Jane Doe's case is complex"},
                },
            },
            "status": {
                "approvedBy": ["bob"], "conditions": [],
                "abort": {"token": "for Mallory", "at": "2026-11-21T09:00:00Z", "message": "aborted, as somebody asked (for Mallory)"},
            },
        })
    }

    fn redacted() -> (Redaction, Value) {
        let mut redaction = Redaction::new();
        redaction.learn(&[serde_json::from_value(request()).unwrap()], &[]);
        let mut value = request();
        redaction.object(&mut value);
        (redaction, value)
    }

    #[test]
    fn what_a_message_repeats_of_a_reason_is_left_out_of_it() {
        let mut approval: UnlearnApproval = serde_json::from_value(json!({
            "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnApproval", "metadata": {"name": "no"},
            "spec": {
                "requestRef": {"name": "forget-three", "uid": "u"}, "decision": "Deny", "approver": "eve",
                "reason": "Jane Doe withdrew",
            },
        }))
        .unwrap();
        let mut redaction = Redaction::new();
        redaction.learn(&[serde_json::from_value(request()).unwrap()], std::slice::from_ref(&approval));
        let said = redaction.text("eve said no: Jane Doe withdrew; extended: Jane Doe's case is complex");
        assert!(
            !said.contains("Jane") && !said.contains("eve") && said.contains("said no: (left out)"),
            "{said}"
        );
        approval.spec.reason = "ok".into();
        let mut short = Redaction::new();
        short.learn(&[], &[approval]);
        assert_eq!(short.text("it took a look"), "it took a look");
    }

    #[test]
    fn people_and_references_have_a_stand_in_and_free_words_are_left_out() {
        let (_, value) = redacted();
        let text = value.to_string();
        for secret in
            ["DSR-2026-0042", "alice", "Alice", "bob", "Jane", "complex", "Erin", "Mallory", "managedFields"]
        {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert!(value["spec"]["dataSubjectRequest"]["reference"].as_str().unwrap().starts_with("subject-"));
        assert!(value["spec"]["requestedBy"].as_str().unwrap().starts_with("person-"));
        assert_eq!(value["metadata"]["annotations"]["lethe.dev/retry"], LEFT_OUT);
        assert_eq!(value["status"]["abort"]["message"], "aborted, as somebody asked (left out)");
        assert_eq!(value["spec"]["targets"][0]["label"], "3");
    }

    #[test]
    fn a_name_has_the_same_stand_in_everywhere_and_another_one_in_another_bundle() {
        let (redaction, value) = redacted();
        let stand_in = value["status"]["approvedBy"][0].as_str().unwrap().to_owned();
        let log = redaction.text("approved by bob; bobbin and mybob are others, user \"bob\" is not");
        assert_eq!(
            log,
            format!("approved by {stand_in}; bobbin and mybob are others, user \"{stand_in}\" is not")
        );
        let (_, other) = redacted();
        assert_ne!(other["status"]["approvedBy"][0], value["status"]["approvedBy"][0]);
    }

    #[test]
    fn values_of_variables_and_what_looks_like_a_secret_are_left_out() {
        let mut redaction = Redaction::new();
        let mut pod = json!({"spec": {"containers": [{
            "env": [{"name": "KEY", "value": "hunter2"}, {"name": "REF", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
            "args": ["--password=hunter2", "--store=s3://user:hunter2@host/b"],
        }]}});
        redaction.object(&mut pod);
        assert!(!pod.to_string().contains("hunter2"), "{pod}");
        assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "KEY");
        assert_eq!(pod["spec"]["containers"][0]["env"][1]["valueFrom"]["secretKeyRef"]["name"], "s");
        assert_eq!(redaction.text("Authorization: Bearer abc.def-1"), "Authorization: Bearer (left out)");
    }
}
