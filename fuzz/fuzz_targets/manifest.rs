//! A manifest that is taken lists the two files and no path, and is its own JSON; another is refused in one line.
#![no_main]

use lethe_api::contract::{Digest, Manifest};
use lethe_fuzz::assert_readable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Manifest::parse(bytes) {
        Ok(manifest) => {
            assert!(manifest.files.keys().eq([Manifest::MODEL, Manifest::WEIGHTS]), "{manifest:?}");
            let json = serde_json::to_vec(&manifest).expect("a manifest has a JSON form");
            let again = Manifest::parse(&json).expect("a manifest reads its own JSON");
            assert_eq!(again, manifest);
            assert_eq!(Digest::of(serde_json::to_vec(&again).expect("as before")), Digest::of(json));
        }
        Err(error) => assert_readable(error),
    }
});
