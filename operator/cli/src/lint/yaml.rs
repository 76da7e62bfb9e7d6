//! YAML whose values know where they stand.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

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
    let parsed: Result<Vec<Node>, _> = serde_saphyr::from_multiple(text);
    let parsed = parsed.map_err(|error| {
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

fn items(node: Node) -> Vec<Node> {
    let is_list = node.text("kind") == Some("List") && node.text("apiVersion") == Some("v1");
    match node.value {
        Tree::Map(fields) if is_list => {
            let items = fields.into_iter().find(|(key, ..)| key == "items").map(|(.., items)| items.value);
            match items {
                Some(Tree::List(items)) => items,
                _ => vec![],
            }
        }
        value => vec![Node { value, ..node }],
    }
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
