//! A plan that is taken is its own JSON, to the digest; one that is refused is refused in one line.
#![no_main]

use lethe_api::contract::{Digest, Plan};
use lethe_fuzz::assert_readable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match Plan::parse(bytes) {
        Ok(plan) => {
            let json = plan.to_json();
            let again = Plan::parse(json.as_bytes()).expect("a plan reads its own JSON");
            assert_eq!(again, plan);
            assert_eq!(again.digest(), Digest::of(json));
        }
        Err(error) => assert_readable(error),
    }
});
