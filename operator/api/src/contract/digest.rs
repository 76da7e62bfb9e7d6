//! Content digests: how everything in Lethe is named.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The sha256 of some bytes, written `sha256:` and 64 lower-case hexadecimal digits.
///
/// A value of this type is always well formed, so it may be used as a path segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Written by hand: deriving it for a type that serde converts describes any string.
impl JsonSchema for Digest {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 71,
            "maxLength": 71,
            "pattern": "^sha256:[0-9a-f]{64}$",
        })
    }
}

/// A string that is not a digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: expected \"sha256:\" and 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl Digest {
    const PREFIX: &str = "sha256:";

    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(format!("{}{}", Self::PREFIX, hex::encode(Sha256::digest(bytes))))
    }

    /// Every digest that is named anywhere in a text.
    pub fn named_in(text: &str) -> impl Iterator<Item = Self> + '_ {
        let ends = text.match_indices(Self::PREFIX).map(|(at, prefix)| (at, at + prefix.len() + 64));
        ends.filter_map(|(at, end)| text.get(at..end)?.parse().ok())
    }

    /// The digest with these 64 hexadecimal digits, if they are that.
    pub fn from_hex(hex: &str) -> Option<Self> {
        format!("{}{hex}", Self::PREFIX).parse().ok()
    }

    /// The whole name, with its algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0[Self::PREFIX.len()..]
    }

    /// The first 12 hexadecimal digits, for people and printer columns.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, DigestError> {
        let is_lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        match s.strip_prefix(Self::PREFIX) {
            Some(hex) if hex.len() == 64 && hex.bytes().all(is_lower_hex) => Ok(Self(s.to_owned())),
            // Whoever sent this may have sent megabytes: quote a beginning only.
            _ => Err(DigestError(s.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(s: String) -> Result<Self, DigestError> {
        s.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_the_published_one() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Digest::of(b"").short(), "e3b0c44298fc");
    }

    #[test]
    fn every_digest_in_a_text_is_found_and_nothing_else() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let text = format!("{{\"a\":\"{a}\"}} sha256:short sha256:sha256:\u{e9} {b}, {a}");
        assert_eq!(Digest::named_in(&text).collect::<Vec<_>>(), [a.clone(), b, a.clone()]);
        assert_eq!(Digest::from_hex(a.hex()), Some(a));
        assert_eq!(Digest::from_hex("manifest.json"), None);
    }

    #[test]
    fn only_the_canonical_spelling_is_a_digest() {
        let good = Digest::of(b"x");
        assert_eq!(good.as_str().parse::<Digest>(), Ok(good.clone()));
        for bad in ["", "sha256:", "sha256:../../etc", &good.as_str().to_uppercase(), good.hex()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let longer = format!("{good}0");
        assert!(longer.parse::<Digest>().is_err());
        assert!(serde_json::from_str::<Digest>(&format!("{longer:?}")).is_err());
    }
}
