//! Weights that are read and written again are the same, and writing them is the same every time; others are refused in one
//! line.
#![no_main]

use lethe_fuzz::assert_readable;
use lethe_weights::{Expected, Kind, Tensor, contents, header, read, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = header(bytes) {
        assert_readable(error);
    }
    if let Err(error) = read(bytes, &[expected("input.weight", &[2, 2]), expected("input.bias", &[2])]) {
        assert_readable(error);
    }
    let all = match contents(bytes) {
        Ok(all) => all,
        Err(error) => return assert_readable(error),
    };
    match read(bytes, &all) {
        Ok(values) => assert_rewritten(&all, &values),
        Err(error) => assert_readable(error),
    }
});

fn expected(name: &str, shape: &[usize]) -> Expected {
    Expected { name: name.into(), shape: shape.into(), kind: Kind::F32 }
}

fn assert_rewritten(all: &[Expected], values: &[&[u8]]) {
    let tensors = || {
        all.iter().zip(values).map(|(expected, &values)| {
            let Expected { name, shape, kind } = expected.clone();
            (name, Tensor { shape, kind, bytes: values.into() })
        })
    };
    let written = write(Some("{}".into()), tensors()).expect("what was read can be written");
    assert_eq!(read(&written, all).expect("what was written can be read"), values);
    assert_eq!(header(&written).expect("it was given one"), "{}");
    let backwards: Vec<_> = tensors().collect();
    let again = write(Some("{}".into()), backwards.into_iter().rev()).expect("as before");
    assert_eq!(again, written);
}
