//! An entry of the audit log that is taken has no other spelling, and a bundle of entries neither. What nobody has signed is
//! refused in one line.
#![no_main]

use lethe_evidence::TrustedKeys;
use lethe_fuzz::assert_readable;
use lethe_transparency::{Checkpoint, Commit, Entry, tile};
use libfuzzer_sys::fuzz_target;

/// The second one of RFC 8032: its other half is published, and nobody has signed with it here.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n\
                   -----END PUBLIC KEY-----\n";
const ORIGIN: &str = "lethe.dev/studio";

fuzz_target!(|bytes: &[u8]| {
    match Entry::parse(bytes) {
        Ok(entry) => assert_eq!(entry.to_bytes().as_deref(), Ok(bytes)),
        Err(error) => assert_readable(error),
    }
    if let Some(entries) = tile::entries(bytes) {
        assert_eq!(tile::bundle(entries).as_deref(), Some(bytes));
    }
    if let Some(hashes) = tile::hashes(bytes) {
        assert_eq!(tile::tile(&hashes), bytes);
    }
    let trusted = TrustedKeys::from_pem(KEY.as_bytes()).expect("a key as openssl writes it");
    if let Err(error) = Checkpoint::read(bytes) {
        assert_readable(error);
    }
    assert_readable(Checkpoint::open(bytes, ORIGIN, &trusted).expect_err("nobody has signed it"));
    assert_readable(Commit::open(bytes, ORIGIN, &trusted, 0).expect_err("nobody has signed it"));
});
