//! Ed25519 keys in the files that `openssl` writes and reads.
//!
//! A signing key is one `PRIVATE KEY` (PKCS#8) in PEM. Trusted keys are one or more `PUBLIC KEY` (SPKI) in PEM, in one file: to
//! change the key that signs, trust both for a while.

use std::{fmt, fs::File, io::Read, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lethe_api::Digest;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::{self, PemObject, SectionKind};

/// A larger file holds something else.
const MAX_BYTES: u64 = 64 * 1024;
/// More keys than these are no rotation.
const MAX_KEYS: usize = 32;
/// What stands before the 32 bytes of every Ed25519 public key in SPKI DER (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a file of keys cannot be used. Each is one line; none quotes what is in the file.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {why}")]
pub struct KeyError {
    what: &'static str,
    path: String,
    why: String,
}

/// The key that signs. It is neither shown nor written anywhere.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Reads the key from a PEM file, as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// The file cannot be read, or holds anything but one Ed25519 key in PKCS#8.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        read(path).and_then(|pem| Self::from_pem(&pem)).map_err(|why| error("the signing key", path, why))
    }

    fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let [(SectionKind::PrivateKey, der)] = &sections(pem)?[..] else {
            return Err(
                "one PRIVATE KEY in PEM is needed; write one with openssl genpkey -algorithm ed25519".into(),
            );
        };
        // openssl writes the first version of the format, which leaves the public half out.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map_err(|_| "it is not an Ed25519 key; write one with openssl genpkey -algorithm ed25519")?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| "it has no public half")?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    /// The signature of these bytes: the same key and bytes always give the same one.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }

    /// The half that may be shown.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id())
    }
}

/// The half of a key that verifies: 32 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key itself, as RFC 8032 writes it.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its name: the sha256 of its SPKI DER, as `openssl pkey -pubin -outform DER | sha256sum` finds it.
    pub fn id(&self) -> Digest {
        Digest::of(self.der())
    }

    /// As a file of trusted keys holds it.
    pub fn to_pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.der()))
    }

    /// Whether this key signed these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(bytes, signature).is_ok()
    }

    fn der(&self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..SPKI.len()].copy_from_slice(&SPKI);
        der[SPKI.len()..].copy_from_slice(&self.0);
        der
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        Some(Self(der.strip_prefix(&SPKI)?.try_into().ok()?))
    }
}

/// The keys whose signatures count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKeys {
    keys: Vec<PublicKey>,
}

impl TrustedKeys {
    /// Reads one or more public keys from a PEM file, as `openssl pkey -pubout` writes them, one after another.
    ///
    /// # Errors
    /// The file cannot be read, holds no key, or holds something that is no Ed25519 public key: one that was meant to be
    /// trusted and is passed over would be noticed too late.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        read(path).and_then(|pem| Self::from_pem(&pem)).map_err(|why| error("the trusted keys", path, why))
    }

    /// The same, from what is in the file.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let mut keys: Vec<PublicKey> = Vec::new();
        for (kind, der) in sections(pem)? {
            let key = (kind == SectionKind::PublicKey).then(|| PublicKey::from_der(&der)).flatten();
            let place = keys.len() + 1;
            let key = key.ok_or_else(|| {
                let is_private = kind == SectionKind::PrivateKey;
                let hint = if is_private { ": it is a private key, which must not lie here" } else { "" };
                format!(
                    "block {place} is not an Ed25519 PUBLIC KEY{hint}; write it with openssl pkey -pubout"
                )
            })?;
            keys.push(key);
        }
        match keys.len() {
            0 => Err("it holds no PUBLIC KEY; write one with openssl pkey -pubout".into()),
            n if n > MAX_KEYS => Err(format!("it holds {n} keys; at most {MAX_KEYS} are trusted")),
            _ => Ok(Self { keys }),
        }
    }

    /// Trust in this key alone.
    pub fn only(key: &PublicKey) -> Self {
        Self { keys: vec![key.clone()] }
    }

    /// Every key, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter()
    }

    /// The first of the keys that signed these bytes, if any did.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.verify(bytes, signature))
    }

    /// The keys, as people compare them.
    pub fn names(&self) -> String {
        self.keys.iter().map(|key| key.id().short().to_owned()).collect::<Vec<_>>().join(", ")
    }
}

fn error(what: &'static str, path: &Path, why: String) -> KeyError {
    KeyError { what, path: path.display().to_string(), why }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    opened.map_err(|error| format!("it cannot be read: {error}; see that it is mounted"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes, so it is no file of keys"));
    }
    Ok(bytes)
}

/// Every block of a PEM file.
fn sections(pem: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, String> {
    let blocks: Result<_, pem::Error> = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).collect();
    // The error may quote what is in the file.
    blocks.map_err(|_| "it is not PEM: a block is damaged or cut off".into())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{fs, process::Command};

    use super::*;

    /// RFC 8032, section 7.1, test 2: the secret half, the public half, the message `72`, and its signature.
    const SECRET: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNED: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                          085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn private(secret: &str) -> String {
        let head = hex::decode("302e020100300506032b657004220420").unwrap();
        pem("PRIVATE KEY", &[head, hex::decode(secret).unwrap()].concat())
    }

    pub(crate) fn key(byte: u8) -> SigningKey {
        SigningKey::from_pem(private(&hex::encode([byte; 32])).as_bytes()).unwrap()
    }

    #[test]
    fn a_signature_is_the_published_one() {
        let key = SigningKey::from_pem(private(SECRET).as_bytes()).unwrap();
        assert_eq!(hex::encode(key.public().bytes()), PUBLIC);
        assert_eq!(hex::encode(key.sign(&[0x72])), SIGNED);
        assert!(key.public().verify(&[0x72], &hex::decode(SIGNED).unwrap()));
        assert!(!key.public().verify(&[0x73], &hex::decode(SIGNED).unwrap()));
        assert!(!format!("{key:?}").contains(&SECRET[..8]));
    }

    #[test]
    fn every_flipped_bit_of_a_signature_is_found() {
        let key = key(1);
        let good = key.sign(b"evidence");
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.public().verify(b"evidence", &bad), "bit {bit}");
        }
        assert!(!key.public().verify(b"evidence", &good[..63]) && !key.public().verify(b"evidence", b""));
    }

    #[test]
    fn a_file_may_hold_the_old_key_and_the_new_one() {
        let (old, new, other) = (key(1), key(2), key(3));
        let both = format!("# the old one\n{}\n{}", old.public().to_pem(), new.public().to_pem());
        let trusted = TrustedKeys::from_pem(both.as_bytes()).unwrap();
        assert_eq!(trusted.iter().collect::<Vec<_>>(), [old.public(), new.public()]);
        assert_eq!(trusted.verify(b"x", &new.sign(b"x")), Some(new.public()));
        assert_eq!(trusted.verify(b"x", &other.sign(b"x")), None);
        assert_eq!(TrustedKeys::only(old.public()).verify(b"x", &new.sign(b"x")), None);
    }

    #[test]
    fn a_file_that_is_not_what_it_should_be_is_refused_and_not_quoted() {
        let secret = private(SECRET);
        let public = key(1).public().to_pem();
        let two = format!("{secret}{secret}");
        let cut = &secret[..secret.len() - 10];
        let rsa = pem("PRIVATE KEY", b"\x30\x03\x02\x01\x00");
        for bad in ["", "nothing", &public, &two, cut, &rsa] {
            let error = SigningKey::from_pem(bad.as_bytes()).unwrap_err();
            assert!(!error.contains("MC4C"), "{error}");
        }
        let mixed = format!("{public}{secret}");
        for bad in ["", "nothing", &secret, &mixed, &pem("PUBLIC KEY", &[0; 44])] {
            assert!(TrustedKeys::from_pem(bad.as_bytes()).is_err(), "{bad}");
        }
        let error = TrustedKeys::from_pem(mixed.as_bytes()).unwrap_err();
        assert!(error.contains("block 2") && error.contains("a private key"), "{error}");
        let missing = SigningKey::load(Path::new("/no/such/key.pem")).unwrap_err().to_string();
        assert!(missing.starts_with("the signing key /no/such/key.pem: it cannot be read"), "{missing}");
    }

    /// Both ways, with the program that people have.
    #[test]
    fn openssl_writes_keys_that_are_read_and_verifies_what_they_sign() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let openssl = |args: &[&str]| {
            let output = Command::new("openssl").args(args).output().expect("openssl is installed");
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &at("key.pem")]);
        openssl(&["pkey", "-in", &at("key.pem"), "-pubout", "-out", &at("public.pem")]);
        let der = openssl(&["pkey", "-pubin", "-in", &at("public.pem"), "-outform", "DER"]);
        let key = SigningKey::load(Path::new(&at("key.pem"))).unwrap();
        let trusted = TrustedKeys::load(Path::new(&at("public.pem"))).unwrap();
        assert_eq!(trusted, TrustedKeys::only(key.public()));
        assert_eq!(key.public().id(), Digest::of(der));
        assert_eq!(key.public().to_pem(), fs::read_to_string(at("public.pem")).unwrap());
        fs::write(at("bytes"), b"evidence").unwrap();
        fs::write(at("ours.sig"), key.sign(b"evidence")).unwrap();
        let verify =
            ["pkeyutl", "-verify", "-pubin", "-inkey", &at("public.pem"), "-rawin", "-in", &at("bytes")];
        openssl(&[&verify[..], &["-sigfile", &at("ours.sig")]].concat());
        let sign = ["pkeyutl", "-sign", "-inkey", &at("key.pem"), "-rawin", "-in", &at("bytes")];
        assert_eq!(openssl(&sign), key.sign(b"evidence"));
    }
}
