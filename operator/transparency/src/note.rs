//! Signed notes, as <https://c2sp.org/signed-note> says, with Ed25519 signatures only.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lethe_evidence::{PublicKey, SigningKey, TrustedKeys};
use sha2::{Digest as _, Sha256};

/// A larger note is none of ours.
const MAX_BYTES: usize = 64 * 1024;
/// A note has a few signatures: of the log, of its witnesses, and of keys that are about to change.
const MAX_SIGNATURES: usize = 64;
/// The signature type of Ed25519.
const ED25519: u8 = 1;
const DASH: &str = "\u{2014} ";

/// Why a note does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("it is not a signed note: {0}")]
    Malformed(&'static str),
    #[error("nobody signed it who is trusted as {name}: it is signed by {by}")]
    Unknown { name: String, by: String },
    #[error("the signature of {name} with key {id:08x} is not of this text")]
    Wrong { name: String, id: u32 },
    #[error("{0:?} cannot be the name of a key: it must be without spaces and plus signs, and not empty")]
    Name(String),
}

/// Signs a text, which ends with a line's end, in the name of `name`.
///
/// # Errors
/// If the text or the name cannot be in a note.
pub fn sign(text: &str, name: &str, key: &SigningKey) -> Result<String, NoteError> {
    check_name(name)?;
    check_text(text)?;
    let mut signature = id(name, key.public()).to_be_bytes().to_vec();
    signature.extend(key.sign(text.as_bytes()));
    Ok(format!("{text}\n{DASH}{name} {}\n", STANDARD.encode(signature)))
}

/// The text of a note, if a trusted key signed it in this name. What others signed is passed over; what a trusted key is said to
/// have signed and has not is an error.
///
/// # Errors
/// If it is no note, or none that counts.
pub fn open<'a>(note: &'a [u8], name: &str, trusted: &TrustedKeys) -> Result<&'a str, NoteError> {
    let (text, signatures) = parse(note)?;
    let mut counts = false;
    for signature in &signatures {
        let of = |key: &&PublicKey| signature.name == name && signature.id == id(name, key);
        let mut claimed = trusted.iter().filter(of).peekable();
        if claimed.peek().is_none() {
            continue;
        }
        if !claimed.any(|key| key.verify(text.as_bytes(), &signature.bytes)) {
            return Err(NoteError::Wrong { name: name.into(), id: signature.id });
        }
        counts = true;
    }
    if counts {
        return Ok(text);
    }
    let by: Vec<_> = signatures.iter().map(|it| format!("{} with key {:08x}", it.name, it.id)).collect();
    Err(NoteError::Unknown { name: name.into(), by: by.join(", ").chars().take(300).collect() })
}

/// The text of a note that somebody says to have signed in this name, **whoever that is**.
///
/// # Errors
/// If it is no note, or nobody says so.
pub fn claimed<'a>(note: &'a [u8], name: &str) -> Result<&'a str, NoteError> {
    let (text, signatures) = parse(note)?;
    match signatures.iter().any(|signature| signature.name == name) {
        true => Ok(text),
        false => Err(NoteError::Malformed("nobody says to have signed it in the name of the log")),
    }
}

/// What names a key in a note: the beginning of a hash of both names.
pub fn id(name: &str, key: &PublicKey) -> u32 {
    let hash =
        Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.bytes()).finalize();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// The key as others are told it, who verify notes with tools of their own.
pub fn verifier_key(name: &str, key: &PublicKey) -> String {
    let public = [&[ED25519][..], key.bytes()].concat();
    format!("{name}+{:08x}+{}", id(name, key), STANDARD.encode(public))
}

/// Whether keys may have this name.
///
/// # Errors
/// If not.
pub fn check_name(name: &str) -> Result<(), NoteError> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    match name.is_empty() || name.chars().any(is_bad) {
        true => Err(NoteError::Name(name.chars().take(80).collect())),
        false => Ok(()),
    }
}

fn check_text(text: &str) -> Result<(), NoteError> {
    let steers = |c: char| c < ' ' && c != '\n';
    match () {
        () if !text.ends_with('\n') => Err(NoteError::Malformed("its text does not end with a line's end")),
        () if text.chars().any(steers) => Err(NoteError::Malformed("there are control characters in it")),
        () => Ok(()),
    }
}

struct Signature<'a> {
    name: &'a str,
    id: u32,
    bytes: Vec<u8>,
}

fn parse(note: &[u8]) -> Result<(&str, Vec<Signature<'_>>), NoteError> {
    if note.len() > MAX_BYTES {
        return Err(NoteError::Malformed("it is too long"));
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed("it is not UTF-8"))?;
    let end = note.rfind("\n\n").ok_or(NoteError::Malformed("no empty line is before its signatures"))? + 1;
    let (text, signatures) = (&note[..end], &note[end + 1..]);
    check_text(text)?;
    let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Malformed("its last line has no end"))?;
    let signatures: Vec<_> = signatures.split('\n').map(parse_line).collect::<Result<_, _>>()?;
    match signatures.len() {
        n if n > MAX_SIGNATURES => Err(NoteError::Malformed("it has too many signatures")),
        _ => Ok((text, signatures)),
    }
}

fn parse_line(line: &str) -> Result<Signature<'_>, NoteError> {
    const BAD: NoteError = NoteError::Malformed("one of its last lines is no signature");
    let (name, signature) = line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or(BAD)?;
    check_name(name).map_err(|_| BAD)?;
    let bytes = STANDARD.decode(signature).map_err(|_| BAD)?;
    let (id, rest) = bytes.split_first_chunk::<4>().ok_or(BAD)?;
    if rest.is_empty() {
        return Err(BAD);
    }
    Ok(Signature { name, id: u32::from_be_bytes(*id), bytes: rest.to_vec() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key whose secret half is this byte, 32 times.
    pub(crate) fn key(byte: u8) -> SigningKey {
        let der = [&hex::decode("302e020100300506032b657004220420").unwrap()[..], &[byte; 32]].concat();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        SigningKey::load(file.path()).unwrap()
    }

    fn trusted(keys: &[&SigningKey]) -> TrustedKeys {
        let pem: String = keys.iter().map(|key| key.public().to_pem()).collect();
        TrustedKeys::from_pem(pem.as_bytes()).unwrap()
    }

    /// The example of the specification.
    const NAME: &str = "example.com/foo";
    const VERIFIER: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const NOTE: &str = "This is an example message.\n\n\u{2014} example.com/foo \
        Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn published() -> TrustedKeys {
        let raw = STANDARD.decode(VERIFIER.rsplit_once('+').unwrap().1).unwrap();
        let der = [&hex::decode("302a300506032b6570032100").unwrap()[..], &raw[1..]].concat();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        TrustedKeys::from_pem(pem.as_bytes()).unwrap()
    }

    #[test]
    fn the_published_note_is_opened_with_the_published_key() {
        let keys = published();
        assert_eq!(open(NOTE.as_bytes(), NAME, &keys), Ok("This is an example message.\n"));
        assert_eq!(verifier_key(NAME, keys.iter().next().unwrap()), VERIFIER);
        let other = open(NOTE.as_bytes(), "example.com/bar", &keys).unwrap_err();
        assert!(matches!(&other, NoteError::Unknown { by, .. } if by.contains("530d903a")), "{other}");
    }

    #[test]
    fn every_flipped_bit_of_a_note_is_found() {
        let keys = published();
        for bit in 0..NOTE.len() * 8 {
            let mut bad = NOTE.as_bytes().to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, NAME, &keys).is_err(), "bit {bit}: {}", String::from_utf8_lossy(&bad));
        }
        assert!(open(&NOTE.as_bytes()[..NOTE.len() - 1], NAME, &keys).is_err());
        assert!(open(&[NOTE.as_bytes(), b"\n"].concat(), NAME, &keys).is_err());
    }

    #[test]
    fn a_note_counts_if_one_trusted_key_signed_it_whoever_else_did() {
        let (old, new, other) = (key(1), key(2), key(3));
        let text = "first\n\nlast\n";
        let by_old = sign(text, "lethe.dev/a", &old).unwrap();
        let line = |key| sign(text, "lethe.dev/a", key).unwrap().rsplit_once("\n\n").unwrap().1.to_owned();
        let by_both = format!("{by_old}{}", line(&new));
        for keys in [trusted(&[&old]), trusted(&[&new]), trusted(&[&new, &old])] {
            assert_eq!(open(by_both.as_bytes(), "lethe.dev/a", &keys), Ok(text));
        }
        let unknown = open(by_both.as_bytes(), "lethe.dev/a", &trusted(&[&other]));
        assert!(matches!(unknown, Err(NoteError::Unknown { .. })));
        // Of a key that is trusted, everything has to be right.
        let wrong = by_both.replace("first", "second");
        let wrong = open(wrong.as_bytes(), "lethe.dev/a", &trusted(&[&new]));
        assert!(matches!(wrong, Err(NoteError::Wrong { .. })));
    }

    #[test]
    fn what_cannot_be_a_note_is_not_signed() {
        let key = key(1);
        for name in ["", "a b", "a+b", "a\u{2003}b", "a\nb"] {
            assert!(matches!(sign("x\n", name, &key), Err(NoteError::Name(_))), "{name:?}");
        }
        for text in ["", "x", "x\r\n", "\u{1b}[2J\n"] {
            assert!(matches!(sign(text, "a", &key), Err(NoteError::Malformed(_))), "{text:?}");
        }
    }
}
