//! YAML as kubectl reads it, whose values know where they stand.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// So many numbers in a text may be too large for a float: of digests, about one in three hundred looks like one.
const MOST_BEYOND: u32 = 1000;

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub line: usize,
    pub column: usize,
    pub value: Tree,
}

#[derive(Clone, Debug)]
pub enum Tree {
    Scalar(Value),
    List(Vec<Node>),
    /// With the places of the keys.
    Map(Vec<(String, usize, usize, Node)>),
}

/// Text that is not YAML, or too odd to be a manifest.
#[derive(Debug)]
pub struct Broken {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// A step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Field(String),
    Index(usize),
}

/// The documents of a stream, without empty ones. A list of objects, as kubectl exports several, is its objects.
///
/// # Errors
/// Where it is not YAML.
pub fn documents(text: &str) -> Result<Vec<Node>, Broken> {
    let parsed = parse(text).map_err(|error| {
        let place = error.location();
        let at = |of: fn(&serde_saphyr::Location) -> u64| {
            place.as_ref().map(of).and_then(|n| usize::try_from(n).ok()).unwrap_or_default()
        };
        let message = error.to_string();
        Broken {
            line: at(|place| place.line()),
            column: at(|place| place.column()),
            message: format!("not YAML: {}", message.lines().next().unwrap_or_default()),
        }
    })?;
    let filled = parsed.into_iter().filter(|node| !matches!(node.value, Tree::Scalar(Value::Null)));
    Ok(filled.flat_map(items).collect())
}

/// The reader can be told to take a number that is too large for text, but then says `.inf`, and not what stood there: it reads
/// again instead, once for each such number.
fn parse(text: &str) -> Result<Vec<Node>, serde_saphyr::Error> {
    let (mut text, mut again) = (Cow::Borrowed(text), MOST_BEYOND);
    loop {
        // An export is as long as there are objects. What is nested or repeated too often is refused still.
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: usize::MAX,
                max_nodes: usize::MAX,
                max_documents: usize::MAX,
                max_total_scalar_bytes: usize::MAX,
            },
        };
        match serde_saphyr::from_multiple_with_options(&text, options) {
            Err(error) if again > 0 => text = Cow::Owned(quoted(&text, &error).ok_or(error)?),
            parsed => return parsed,
        }
        again -= 1;
    }
}

/// The same text with quotes around digits for which no float is large enough. To kubectl they are text, written without
/// quotes: the short form of a digest may be `32304e638182`.
fn quoted(text: &str, error: &serde_saphyr::Error) -> Option<String> {
    let serde_saphyr::Error::NonFiniteFloat { value, location } = error.without_snippet() else {
        return None;
    };
    let at = usize::try_from(location.span().byte_offset()?).ok()?;
    let rest = text.get(at..)?.strip_prefix(value.as_str())?;
    value.contains(|c: char| c.is_ascii_digit()).then(|| format!("{}\"{value}\"{rest}", &text[..at]))
}

fn items(mut node: Node) -> Vec<Node> {
    let is_list = node.text("kind").is_some_and(|kind| kind.ends_with("List"));
    if let Tree::Map(fields) = &mut node.value
        && is_list
        && let Some((.., Node { value: Tree::List(items), .. })) =
            fields.iter_mut().find(|(key, ..)| key == "items")
    {
        return std::mem::take(items);
    }
    vec![node]
}

impl Node {
    /// The same without places.
    pub fn json(&self) -> Value {
        match &self.value {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => items.iter().map(Node::json).collect(),
            Tree::Map(fields) => {
                Value::Object(fields.iter().map(|(key, _, _, node)| (key.clone(), node.json())).collect())
            }
        }
    }

    /// A text field of a mapping.
    pub fn text(&self, key: &str) -> Option<&str> {
        let Tree::Map(fields) = &self.value else { return None };
        match fields.iter().find(|(name, ..)| name == key).map(|(.., node)| &node.value) {
            Some(Tree::Scalar(Value::String(text))) => Some(text),
            _ => None,
        }
    }

    /// Where a path leads, or the last of it that is there.
    pub fn place(&self, path: &[Step]) -> (usize, usize) {
        let (mut node, mut place) = (self, (self.line, self.column));
        for step in path {
            match (step, &node.value) {
                (Step::Field(name), Tree::Map(fields)) => {
                    let Some((_, line, column, next)) = fields.iter().find(|(key, ..)| key == name) else {
                        break;
                    };
                    (node, place) = (next, (*line, *column));
                }
                (Step::Index(index), Tree::List(items)) => {
                    let Some(next) = items.get(*index) else { break };
                    (node, place) = (next, (next.line, next.column));
                }
                _ => break,
            }
        }
        place
    }
}

/// A path as the API server writes it.
pub fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text += name,
            Step::Field(name) if name.contains('.') || name.contains('/') => text += &format!("[{name}]"),
            Step::Field(name) => text += &format!(".{name}"),
            Step::Index(index) => text += &format!("[{index}]"),
        }
    }
    text
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        let at = |n: u64| usize::try_from(n).unwrap_or_default();
        let place = spanned.referenced;
        Ok(Self { line: at(place.line()), column: at(place.column()), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = |n: u64| usize::try_from(n).unwrap_or_default();
            let (line, column) = (at(key.referenced.line()), at(key.referenced.column()));
            fields.push((key.value, line, column, map.next_value()?));
        }
        Ok(Tree::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_where_it_stands() {
        let text = "a: 1\nb:\n  - c: x\n    d: [2, 3]\n---\n---\ne: true\n";
        let found = documents(text).unwrap_or_default();
        assert_eq!(found.len(), 2, "an empty document is none");
        let field = |name: &str| Step::Field(name.into());
        let path = [field("b"), Step::Index(0), field("d"), Step::Index(1)];
        assert_eq!(found[0].place(&path), (4, 12));
        assert_eq!(found[0].place(&[field("b"), Step::Index(0), field("nothing")]), (3, 5));
        assert_eq!(written(&path), "b[0].d[1]");
        assert_eq!(found[0].json(), serde_json::json!({"a": 1, "b": [{"c": "x", "d": [2, 3]}]}));
        assert_eq!(found[1].place(&[field("e")]).0, 7);
    }

    #[test]
    fn digits_beyond_every_float_are_text_as_they_are_to_kubectl() {
        let text =
            "\u{e4}: x\n---\nshort: 32304e638182\nall: [1e999, -1e999, '2e999', 1e3]\nwords: |\n  3e999\n";
        let found: Vec<_> = documents(text).unwrap_or_default().iter().map(Node::json).collect();
        let all = serde_json::json!(["1e999", "-1e999", "2e999", 1000.0]);
        let expected = serde_json::json!({"short": "32304e638182", "all": all, "words": "3e999\n"});
        assert_eq!(found.get(1), Some(&expected), "{found:?}");
        for none in [".inf", "-.inf", ".nan", "!!float 1e999"] {
            assert!(documents(&format!("a: {none}")).is_err(), "{none}");
        }
        // And what we write of it is read as the same.
        let written = serde_saphyr::to_string(&expected).unwrap_or_default();
        assert_eq!(documents(&written).unwrap_or_default().first().map(Node::json), Some(expected));
    }

    #[test]
    fn an_export_of_years_is_read_and_what_is_nested_without_end_is_not() {
        let one = "- kind: A\n  status:\n    labels: [a, b, c, d, e, f, g, h, i, j]\n";
        let text = format!("apiVersion: v1\nkind: List\nitems:\n{}", one.repeat(20_000));
        assert_eq!(documents(&text).map_or(0, |all| all.len()), 20_000);
        assert!(documents(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_list_is_its_items_and_what_is_no_yaml_says_where() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- kind: A\n- kind: B\n";
        let kinds: Vec<_> =
            documents(text).unwrap_or_default().iter().map(|node| node.json()["kind"].clone()).collect();
        assert_eq!(kinds, ["A", "B"]);
        let broken = documents("a: 1\nb: [\n").err().map(|broken| broken.line);
        assert!(broken.is_some_and(|line| line >= 2), "{broken:?}");
        assert!(documents("a: 1\na: 2\n").is_err(), "a key that is there twice");
    }
}
