//! The envelope in which a statement is signed: DSSE, version 1, with the payload type of in-toto.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lethe_api::{
    Digest,
    contract::{Evidence, Statement},
};
use serde::{Deserialize, Serialize};

use crate::keys::{PublicKey, SigningKey, TrustedKeys};

/// What the payload is. It is signed with the payload, so that bytes which were signed as something else are no statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// A larger envelope is not read.
pub const MAX_BYTES: usize = 3 << 20;
/// An envelope with more signatures is not read.
const MAX_SIGNATURES: usize = 32;

/// Why an envelope proves nothing. One line each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    #[error("it is not a DSSE envelope with an in-toto statement: {0}")]
    Malformed(String),
    #[error(
        "no trusted key has signed it: it names key {named}, trusted are {trusted}. If that key was replaced, sign again what \
         it signed (lethe-operator sign-again), or trust it for a while longer"
    )]
    NotTrusted { named: String, trusted: String },
    #[error("the signature of key {key} is wrong: the evidence was changed after it was signed")]
    WrongSignature { key: String },
    #[error("what a trusted key signed cannot be read: {0}")]
    BadStatement(String),
    #[error("it is about bundle {found}, not {asked}")]
    AnotherBundle { found: String, asked: String },
}

/// A statement that a trusted key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The bundle that it is about.
    pub bundle: Digest,
    pub evidence: Evidence,
    /// The name of the key.
    pub key: Digest,
    /// The exact bytes that were signed.
    pub statement: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// A hint. Nothing is believed by it.
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// Signs a statement, as [`Statement::to_json`] writes it. The same key and statement always give the same bytes.
pub fn seal(statement: &[u8], key: &SigningKey) -> Vec<u8> {
    let signature = Signature {
        keyid: key.public().id().hex().into(),
        sig: STANDARD.encode(key.sign(&signed_bytes(PAYLOAD_TYPE, statement))),
    };
    let envelope = Envelope {
        payload: STANDARD.encode(statement),
        payload_type: PAYLOAD_TYPE.into(),
        signatures: vec![signature],
    };
    // Three strings and a list: there is nothing in it that JSON cannot say.
    serde_json::to_vec(&envelope).unwrap_or_default()
}

/// What is in an envelope, if a trusted key has signed it and it is about this bundle. One such signature is enough.
///
/// # Errors
/// If there is anything that keeps it from being believed.
pub fn open(envelope: &[u8], bundle: &Digest, trusted: &TrustedKeys) -> Result<Proof, EnvelopeError> {
    let (payload, signatures) = read(envelope)?;
    let key = signer(&payload, &signatures, trusted)?;
    let statement = Statement::parse(&payload).map_err(EnvelopeError::BadStatement)?;
    match statement.bundle() {
        Some(found) if found == *bundle => {
            Ok(Proof { bundle: found, evidence: statement.predicate, key: key.id(), statement: payload })
        }
        found => Err(EnvelopeError::AnotherBundle {
            found: found.map_or_else(|| "none".into(), |found| found.short().into()),
            asked: bundle.short().into(),
        }),
    }
}

/// The bytes that an envelope carries, **whoever made it**: to see what it names, not to believe it.
///
/// # Errors
/// If it is no envelope.
pub fn payload(envelope: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    read(envelope).map(|(payload, _)| payload)
}

/// The pre-authentication encoding of DSSE: the type and the bytes, each with its length, so that neither can pass for a part
/// of the other.
pub fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn read(envelope: &[u8]) -> Result<(Vec<u8>, Vec<Signature>), EnvelopeError> {
    let malformed = |why: &str| EnvelopeError::Malformed(why.into());
    if envelope.len() > MAX_BYTES {
        return Err(malformed(&format!("{} bytes, of which at most {MAX_BYTES} are read", envelope.len())));
    }
    let parsed: Envelope = serde_json::from_slice(envelope)
        .map_err(|error| malformed(&lethe_api::contract::one_line(&error)))?;
    if parsed.payload_type != PAYLOAD_TYPE {
        let found = lethe_api::contract::one_line(&parsed.payload_type);
        return Err(malformed(&format!("its payloadType is {found:?}, not {PAYLOAD_TYPE:?}")));
    }
    let count = parsed.signatures.len();
    if count == 0 || count > MAX_SIGNATURES {
        return Err(malformed(&format!("it has {count} signatures")));
    }
    let payload = STANDARD.decode(&parsed.payload).map_err(|_| malformed("its payload is not base64"))?;
    Ok((payload, parsed.signatures))
}

/// The trusted key that made one of the signatures.
fn signer<'a>(
    payload: &[u8],
    signatures: &[Signature],
    trusted: &'a TrustedKeys,
) -> Result<&'a PublicKey, EnvelopeError> {
    let bytes = signed_bytes(PAYLOAD_TYPE, payload);
    let made = |signature: &Signature| trusted.verify(&bytes, &STANDARD.decode(&signature.sig).ok()?);
    if let Some(key) = signatures.iter().find_map(made) {
        return Ok(key);
    }
    let is_named = |key: &&PublicKey| signatures.iter().any(|signature| signature.keyid == key.id().hex());
    if let Some(key) = trusted.iter().find(is_named) {
        return Err(EnvelopeError::WrongSignature { key: key.id().short().into() });
    }
    let short =
        |signature: &Signature| signature.keyid.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    let named: Vec<String> = signatures.iter().map(short).collect();
    Err(EnvelopeError::NotTrusted { named: named.join(", "), trusted: trusted.names() })
}
