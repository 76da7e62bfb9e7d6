//! Objects as caches keep them where there are thousands that are over: packed, and beside it what caches are searched by. A run
//! holds its plan, a copy of the policy and a result for each gate and label, most of which is alike: a tenth is left of it. A Job or a
//! pod is two kilobytes before it says anything. And each says what others of its kind say as well.

use std::{borrow::Cow, fmt::Debug, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use rmp_serde::Serializer;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::kept::{self, Kept};

mod by_model;
mod child;
mod dictionary;
mod request;
mod run;

pub use by_model::ByModel;
pub use child::Parents;
pub use dictionary::Dictionary;

/// A kind whose objects are kept packed, all of them ([`Kept::is_read`]).
pub trait Pack: Kept<DynamicType = ()> + Serialize + DeserializeOwned + Debug {
    /// What caches are searched by.
    type Index: Clone + Debug + Send + Sync;

    fn index(&self) -> Self::Index;

    /// What objects of this kind have in common.
    fn dictionary() -> &'static Dictionary;
}

/// An object without what nobody reads of it ([`Kept::trim`]).
#[derive(Clone, Debug)]
pub struct Packed<K: Pack> {
    /// Name, namespace, uid and version. **All that [`kube::ResourceExt`] shows of it**: labels, owners and times are packed.
    identity: ObjectMeta,
    pub index: K::Index,
    /// The object as MessagePack, which is read in half the time that JSON takes, packed by LZ4.
    packed: Box<[u8]>,
    /// With this.
    dictionary: Arc<[u8]>,
}

impl<K: Pack> From<K> for Packed<K> {
    fn from(mut object: K) -> Self {
        kept::trim(&mut object);
        let meta = object.meta();
        let identity = ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectMeta::default()
        };
        let (index, bytes) = (object.index(), written(&object));
        let dictionary = K::dictionary().fit_for(&bytes);
        let packed = compress_prepend_size_with_dict(&bytes, &dictionary).into();
        let kept = Self { identity, index, packed, dictionary };
        // Every object of every test that runs the operator goes through here.
        debug_assert_eq!(
            serde_json::to_value(kept.open()).ok(),
            serde_json::to_value(&object).ok(),
            "what is packed comes back as it was"
        );
        kept
    }
}

impl<K: Pack> Packed<K> {
    pub fn open(&self) -> K {
        read(&self.packed, &self.dictionary)
    }
}

// What was packed in this process is read again in this process, by the same types. If that failed, going on without an object
// would be worse than to begin anew.
#[allow(clippy::expect_used)]
fn written(object: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // As in JSON: by the names of fields, and with times as text.
    let mut serializer = Serializer::new(&mut bytes).with_struct_map().with_human_readable();
    object.serialize(&mut serializer).expect("what was read from JSON can be written");
    bytes
}

#[allow(clippy::expect_used)]
fn read<K: DeserializeOwned>(packed: &[u8], dictionary: &[u8]) -> K {
    let bytes = decompress_size_prepended_with_dict(packed, dictionary).expect("it was packed here");
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(&bytes).with_human_readable();
    K::deserialize(&mut deserializer).expect("it was written from such an object")
}

impl<'de, K: Pack> Deserialize<'de> for Packed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::deserialize(deserializer).map(Self::from)
    }
}

/// To the API server it is the object.
impl<K: Pack> Resource for Packed<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.identity
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.identity
    }
}

impl<K: Pack> Kept for Packed<K> {
    const PAGE: u32 = K::PAGE;
    const FIELDS: Option<&str> = K::FIELDS;
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;
    use lethe_api::v1alpha1::{UnlearnRequest, UnlearnRun};
    use serde_json::{Map, Value, json};

    use super::*;

    /// Something of this schema in which every field is set.
    fn full(schema: &Value) -> Value {
        if let Some(first) = schema["enum"].get(0) {
            return first.clone();
        }
        let is = |key: &str, value: &str| schema[key].as_str().is_some_and(|it| it.contains(value));
        match schema["type"].as_str() {
            Some("object") => {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let mut all: Map<_, _> = fields.map(|(name, field)| (name.clone(), full(field))).collect();
                let others = schema.get("additionalProperties").filter(|others| others.is_object());
                all.extend(others.map(|others| ("other".to_owned(), full(others))));
                all.into()
            }
            Some("array") => json!([full(&schema["items"]), full(&schema["items"])]),
            Some("integer") => schema["minimum"].as_i64().unwrap_or_default().max(7).into(),
            Some("number") => 0.25.into(),
            Some("boolean") => true.into(),
            _ if is("pattern", "sha256") => json!(lethe_api::Digest::of(b"")),
            _ if is("format", "date-time") => "2026-11-24T21:00:00Z".into(),
            _ => "1".into(),
        }
    }

    #[test]
    fn an_object_with_all_that_its_kind_may_have_comes_back_whole() {
        fn comes_back<K: Pack + CustomResourceExt>() {
            let definition = serde_json::to_value(K::crd()).unwrap();
            let mut object = full(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
            object["metadata"] = json!({"name": "digits-1", "namespace": "studio", "generation": 3});
            object["apiVersion"] = K::api_version(&()).into();
            object["kind"] = K::kind(&()).into();
            let mut kept: K = serde_json::from_value(object.clone()).unwrap();
            kept::trim(&mut kept);
            let whole = serde_json::to_value(&kept).unwrap();
            assert!(whole.to_string().len() * 10 > object.to_string().len() * 9, "{object}\nis not\n{whole}");
            let packed: Packed<K> = serde_json::from_value(object).unwrap();
            assert_eq!(serde_json::to_value(packed.open()).unwrap(), whole);
        }
        comes_back::<UnlearnRun>();
        comes_back::<UnlearnRequest>();
    }

    #[test]
    fn what_is_alike_is_kept_once() {
        let request = |nth: u32| -> UnlearnRequest {
            serde_json::from_value(json!({
                "apiVersion": "lethe.dev/v1alpha1", "kind": "UnlearnRequest",
                "metadata": {"name": format!("forget-{nth}"), "namespace": "studio"},
                "spec": {
                    "modelRef": {"name": "digits"}, "targets": [{"label": nth.to_string()}],
                    "override": {"strategy": "Fixed", "label": "8"}, "requestedBy": "alice@example.org",
                },
            }))
            .unwrap()
        };
        let bytes = |nth| Packed::from(request(nth)).packed.len();
        let _first = bytes(1);
        assert!(bytes(2) * 3 < written(&request(2)).len(), "{} of {}", bytes(2), written(&request(2)).len());
    }
}
