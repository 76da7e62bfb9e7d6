use std::{fs, process::Command};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lethe_api::{
    Digest,
    contract::{
        Evidence, EvidenceGate, EvidencePolicy, EvidenceRecords, EvidenceRun, Forgotten, Materials, Override,
        Statement,
    },
    gate::{GateName, Verdict},
};
use serde_json::{Value, json};

use crate::{EnvelopeError, PAYLOAD_TYPE, SigningKey, TrustedKeys, keys, open, payload, seal, signed_bytes};

fn bundle() -> Digest {
    Digest::of("candidate")
}

fn evidence() -> Evidence {
    let of = |what: &str| Digest::of(what);
    Evidence {
        model: "digits".into(),
        run: EvidenceRun {
            name: "digits-7f3a".into(),
            plan: of("plan"),
            evaluation: of("evaluation"),
            seed: 7,
        },
        materials: Materials {
            teacher: of("teacher"),
            baseline: of("baseline"),
            distillation: of("distillation"),
            judge: of("judge"),
            reference: None,
            never_saw: None,
        },
        requests: vec![],
        forgets: vec![Forgotten { label: "3".into(), replacement: Override::Nearest }],
        trainers: vec![],
        records: EvidenceRecords { prepare: None, forget: of("forgot"), evaluate: of("measured") },
        policy: EvidencePolicy { source: None, generation: None, digest: of("policy") },
        gates: vec![EvidenceGate {
            name: GateName::DirectLeak,
            target: Some("3".into()),
            hits: Some(2),
            n: Some(3000),
            value: Some("0.0007".into()),
            bound: Some("0.0021".into()),
            threshold: Some("0.005".into()),
            verdict: Verdict::Pass,
        }],
        verdict: Verdict::Pass,
    }
}

fn statement() -> Vec<u8> {
    Statement::of(&bundle(), evidence()).to_json()
}

fn key(byte: u8) -> SigningKey {
    keys::tests::key(byte)
}

/// The vector of the specification.
#[test]
fn what_is_signed_is_encoded_as_dsse_says() {
    let encoded = signed_bytes("http://example.com/HelloWorld", b"hello world");
    assert_eq!(encoded, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn what_is_sealed_can_be_opened_with_the_key_that_is_trusted() {
    let (statement, a) = (statement(), key(1));
    let envelope = seal(&statement, &a);
    assert_eq!(envelope, seal(&statement, &a), "twice is once");
    let proof = open(&envelope, &bundle(), &TrustedKeys::only(a.public())).unwrap();
    assert_eq!((proof.bundle, proof.evidence, proof.key), (bundle(), evidence(), a.public().id()));
    assert_eq!(proof.statement, statement);
    assert_eq!(payload(&envelope).unwrap(), statement);
}

#[test]
fn a_statement_has_no_time_and_no_float() {
    fn walk(value: &Value) {
        match value {
            Value::Number(number) => assert!(number.is_u64(), "{number}"),
            Value::Array(items) => items.iter().for_each(walk),
            Value::Object(fields) => fields.values().for_each(walk),
            _ => {}
        }
    }
    let text = String::from_utf8(statement()).unwrap();
    walk(&serde_json::from_str(&text).unwrap());
    assert!(!text.contains("T0") && !text.contains("At\""), "{text}");
}

/// Sign with one key, trust both, sign with the other, drop the first.
#[test]
fn a_key_is_replaced_without_a_gap_and_what_it_alone_signed_is_refused_then() {
    let (a, b, statement) = (key(1), key(2), statement());
    let pem = |keys: &[&SigningKey]| keys.iter().map(|key| key.public().to_pem()).collect::<String>();
    let trust = |keys: &[&SigningKey]| TrustedKeys::from_pem(pem(keys).as_bytes()).unwrap();
    let by_a = seal(&statement, &a);
    assert!(open(&by_a, &bundle(), &trust(&[&a])).is_ok());
    assert!(open(&by_a, &bundle(), &trust(&[&a, &b])).is_ok());
    let by_b = seal(&statement, &b);
    assert!(
        open(&by_b, &bundle(), &trust(&[&a])).is_err(),
        "whoever verifies has to trust the new key first"
    );
    assert!(open(&by_b, &bundle(), &trust(&[&a, &b])).is_ok());
    assert!(open(&by_b, &bundle(), &trust(&[&b])).is_ok());
    let refused = open(&by_a, &bundle(), &trust(&[&b])).unwrap_err().to_string();
    assert!(
        refused.contains(a.public().id().short()) && refused.contains(b.public().id().short()),
        "{refused}"
    );
    assert!(refused.contains("sign-again"), "it says what to do: {refused}");
}

#[test]
fn one_signature_that_is_known_and_right_is_enough() {
    let (a, b) = (key(1), key(2));
    let mut both: Value = serde_json::from_slice(&seal(&statement(), &a)).unwrap();
    let other: Value = serde_json::from_slice(&seal(&statement(), &b)).unwrap();
    both["signatures"].as_array_mut().unwrap().insert(0, other["signatures"][0].clone());
    // A key id is a hint: without one, or with another's, the signature counts.
    both["signatures"][1].as_object_mut().unwrap().remove("keyid");
    let both = both.to_string();
    for trusted in [&a, &b] {
        open(both.as_bytes(), &bundle(), &TrustedKeys::only(trusted.public())).unwrap();
    }
    assert!(open(both.as_bytes(), &bundle(), &TrustedKeys::only(key(3).public())).is_err());
}

#[test]
fn every_flipped_bit_is_found() {
    let (envelope, trusted) = (seal(&statement(), &key(1)), TrustedKeys::only(key(1).public()));
    let id = key(1).public().id().hex().to_owned();
    let hint = String::from_utf8(envelope.clone()).unwrap().find(&id).unwrap();
    for bit in 0..envelope.len() * 8 {
        let mut flipped = envelope.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Nothing hangs on the hint. That its bytes were changed is seen by the digest that names the envelope.
        let is_hint = (hint..hint + id.len()).contains(&(bit / 8));
        match open(&flipped, &bundle(), &trusted) {
            Ok(proof) => assert!(is_hint && proof.evidence == evidence(), "bit {bit}"),
            Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        }
    }
}

/// Signs these very bytes as this type.
fn signed_as(payload_type: &str, payload: &[u8]) -> String {
    let signature = key(1).sign(&signed_bytes(payload_type, payload));
    json!({
        "payload": STANDARD.encode(payload), "payloadType": payload_type,
        "signatures": [{"keyid": "", "sig": STANDARD.encode(signature)}],
    })
    .to_string()
}

#[test]
fn what_is_not_exactly_what_was_asked_for_is_refused_even_if_it_is_signed() {
    let trusted = TrustedKeys::only(key(1).public());
    let refused = |envelope: &str| open(envelope.as_bytes(), &bundle(), &trusted).unwrap_err();
    let changed = |pointer: &str, value: Value| {
        let mut statement: Value = serde_json::from_slice(&statement()).unwrap();
        *statement.pointer_mut(pointer).unwrap() = value;
        refused(&signed_as(PAYLOAD_TYPE, statement.to_string().as_bytes()))
    };
    let good = signed_as(PAYLOAD_TYPE, &statement());
    assert!(open(good.as_bytes(), &bundle(), &trusted).is_ok());
    let other = signed_as("application/json", &statement());
    assert!(matches!(refused(&other), EnvelopeError::Malformed(_)));
    // As one type, shown as another.
    let disguised = other.replace("application/json", PAYLOAD_TYPE);
    assert!(matches!(refused(&disguised), EnvelopeError::NotTrusted { .. }));
    let sha256 = json!({"sha256": Digest::of("another").hex()});
    assert!(matches!(changed("/subject/0/digest", sha256), EnvelopeError::AnotherBundle { .. }));
    assert!(matches!(changed("/predicateType", json!("https://other/v1")), EnvelopeError::BadStatement(_)));
    assert!(matches!(
        changed("/_type", json!("https://in-toto.io/Statement/v0.1")),
        EnvelopeError::BadStatement(_)
    ));
    let two = json!([
        {"name": "manifest.json", "digest": {"sha256": Digest::of("another").hex()}},
        {"name": "manifest.json", "digest": {"sha256": bundle().hex()}},
    ]);
    assert!(matches!(changed("/subject", two), EnvelopeError::BadStatement(_)));
    for bad in ["", "{}", "[]", "null", &good.replace("\"payload\"", "\"load\""), &good.replace('[', "[[")] {
        assert!(matches!(refused(bad), EnvelopeError::Malformed(_)), "{bad}");
    }
    let none = json!({"payload": "", "payloadType": PAYLOAD_TYPE, "signatures": []}).to_string();
    assert!(matches!(refused(&none), EnvelopeError::Malformed(_)));
    let large = " ".repeat(crate::MAX_BYTES + 1);
    assert!(refused(&large).to_string().contains("at most"));
}

/// By hand, as `docs/evidence.md` has it.
#[test]
fn an_envelope_is_verified_with_openssl_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let envelope: Value = serde_json::from_slice(&seal(&statement(), &key(1))).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    fs::write(at("signed"), [head.as_bytes(), &payload].concat()).unwrap();
    fs::write(at("sig"), STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap())
        .unwrap();
    fs::write(at("key.pem"), key(1).public().to_pem()).unwrap();
    let verifies = || {
        let openssl = Command::new("openssl")
            .args(["pkeyutl", "-verify", "-pubin", "-inkey", &at("key.pem"), "-rawin"])
            .args(["-in", &at("signed"), "-sigfile", &at("sig")])
            .output();
        openssl.expect("openssl is installed").status.success()
    };
    assert!(verifies());
    fs::write(at("signed"), [head.as_bytes(), &payload, b" "].concat()).unwrap();
    assert!(!verifies());
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_evidence_by_chance(bytes: Vec<u8>) {
        proptest::prop_assert!(open(&bytes, &bundle(), &TrustedKeys::only(key(1).public())).is_err());
    }
}
