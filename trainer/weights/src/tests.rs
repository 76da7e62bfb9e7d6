use super::*;

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn tensor(values: &[f32]) -> Tensor<'static> {
    Tensor { shape: vec![values.len()], kind: Kind::F32, bytes: floats(values).into() }
}

fn expected(name: &str, shape: &[usize]) -> Expected {
    Expected { name: name.into(), shape: shape.to_vec(), kind: Kind::F32 }
}

fn file(values: &[f32]) -> Vec<u8> {
    write(Some("{}".into()), [("b".to_owned(), tensor(values)), ("a".to_owned(), tensor(&[7.0]))]).unwrap()
}

#[test]
fn what_was_written_is_read_in_the_order_that_is_asked_for() {
    let file = file(&[1.0, 2.0]);
    let read = read(&file, &[expected("b", &[2]), expected("a", &[1])]).unwrap();
    assert_eq!(read, [floats(&[1.0, 2.0]), floats(&[7.0])]);
    assert_eq!(header(&file).unwrap(), "{}");
    assert_eq!(contents(&file).unwrap(), [expected("a", &[1]), expected("b", &[2])]);
}

#[test]
fn the_order_in_which_tensors_are_given_does_not_matter() {
    let other =
        write(Some("{}".into()), [("a".to_owned(), tensor(&[7.0])), ("b".to_owned(), tensor(&[1.0]))]);
    assert_eq!(other.unwrap(), file(&[1.0]));
}

#[test]
fn the_first_difference_is_named() {
    let good = file(&[1.0, 2.0]);
    let refusal = |bytes: &[u8], tensors: &[Expected]| read(bytes, tensors).unwrap_err();
    let (a, b) = (expected("a", &[1]), expected("b", &[2]));
    assert_eq!(refusal(&good, std::slice::from_ref(&b)), Error::Unknown("a".into()));
    assert_eq!(refusal(&good, &[a.clone(), b.clone(), expected("c", &[])]), Error::Missing("c".into()));
    let shape = Error::Shape { name: "b".into(), found: vec![2], expected: vec![1, 2] };
    assert_eq!(refusal(&good, &[a.clone(), expected("b", &[1, 2])]), shape);
    let wide = Expected { kind: Kind::F64, ..b.clone() };
    let type_ = Error::Type { name: "b".into(), found: "F32".into(), expected: "F64" };
    assert_eq!(refusal(&good, &[a.clone(), wide]), type_);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(refusal(&file(&[1.0, bad]), &[a.clone(), b.clone()]), Error::NotFinite("b".into()));
    }
    for end in [0, 7, 8, 20, good.len() - 1] {
        assert!(matches!(refusal(&good[..end], &[a.clone(), b.clone()]), Error::Malformed(_)), "{end}");
    }
    assert!(matches!(header(&write(None, []).unwrap()), Err(Error::Header(_))));
}

#[test]
fn the_largest_and_the_smallest_numbers_are_finite() {
    let values = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, -0.0];
    assert!(read(&file(&values), &[expected("a", &[1]), expected("b", &[5])]).is_ok());
    let wide = Tensor { shape: vec![2], kind: Kind::F64, bytes: f64::MAX.to_le_bytes().repeat(2).into() };
    let tensors = [Expected { name: "w".into(), shape: vec![2], kind: Kind::F64 }];
    assert!(read(&write(None, [("w".to_owned(), wide)]).unwrap(), &tensors).is_ok());
    let wide = Tensor { shape: vec![1], kind: Kind::F64, bytes: f64::NAN.to_le_bytes().to_vec().into() };
    let tensors = [Expected { name: "w".into(), shape: vec![1], kind: Kind::F64 }];
    assert_eq!(
        read(&write(None, [("w".to_owned(), wide)]).unwrap(), &tensors),
        Err(Error::NotFinite("w".into()))
    );
}

#[test]
fn whatever_a_file_calls_its_tensors_the_error_is_one_line() {
    let name = format!("a\nb\u{1b}[31m{}", "x".repeat(10_000));
    let file = write(None, [(name, tensor(&[1.0]))]).unwrap();
    let message = read(&file, &[]).unwrap_err().to_string();
    assert!(!message.contains(char::is_control) && message.len() < 300, "{message}");
    assert!(
        message.starts_with("tensor a\\nb") && message.ends_with("... does not belong here"),
        "{message}"
    );
}
