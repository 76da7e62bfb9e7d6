//! Nobody makes evidence by trying: an envelope that nobody has signed is refused in one line, and a statement that is taken is
//! its own JSON. Files of keys are others' bytes as well.
#![no_main]

use lethe_api::contract::{Digest, Statement};
use lethe_evidence::{TrustedKeys, open, payload};
use lethe_fuzz::assert_readable;
use libfuzzer_sys::fuzz_target;

/// The second one of RFC 8032: its other half is published, and nobody has signed with it here.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
                   MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n\
                   -----END PUBLIC KEY-----\n";

fuzz_target!(|bytes: &[u8]| {
    let trusted = TrustedKeys::from_pem(KEY.as_bytes()).expect("a key as openssl writes it");
    let bundle = Digest::of("bundle");
    assert_readable(open(bytes, &bundle, &trusted).expect_err("nobody has signed it").to_string());
    if let Err(error) = payload(bytes) {
        assert_readable(error.to_string());
    }
    match Statement::parse(bytes) {
        Ok(statement) => assert_eq!(Statement::parse(&statement.to_json()), Ok(statement)),
        Err(error) => assert_readable(error),
    }
    match TrustedKeys::from_pem(bytes) {
        Ok(keys) => {
            let again: String = keys.iter().map(|key| key.to_pem()).collect();
            assert_eq!(TrustedKeys::from_pem(again.as_bytes()), Ok(keys));
        }
        Err(error) => assert_readable(error),
    }
});
