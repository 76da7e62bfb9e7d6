//! Values that are hashed once and shared by all states that hold them, and answers that are computed once.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

/// A value that is known by the hash of its content: two of the same content are the same.
pub struct Shared<T>(Arc<Hashed<T>>);

struct Hashed<T> {
    hash: u64,
    facts: u64,
    value: T,
}

/// What decisions about other objects read of this one, as a hash. (That they read no more is checked as we go.)
pub trait Facts {
    fn facts(&self, content: u64) -> u64 {
        content
    }
}

impl<T: Serialize + Facts> Shared<T> {
    pub fn new(value: T) -> Self {
        // What the API server would store of it.
        let bytes = serde_json::to_vec(&value).expect("objects have string keys");
        let hash = hash_of(&bytes);
        let facts = value.facts(hash);
        Shared(Arc::new(Hashed { hash, facts, value }))
    }

    /// A changed copy.
    pub fn with(&self, change: impl FnOnce(&mut T)) -> Self
    where
        T: Clone,
    {
        let mut value = self.0.value.clone();
        change(&mut value);
        Self::new(value)
    }
}

impl<T> Shared<T> {
    /// For what cannot be serialised. The hash must be that of everything that counts about it.
    pub fn with_hash(hash: u64, value: T) -> Self {
        Shared(Arc::new(Hashed { hash, facts: hash, value }))
    }

    pub fn content(&self) -> u64 {
        self.0.hash
    }

    pub fn facts(&self) -> u64 {
        self.0.facts
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.hash == other.0.hash
    }
}

impl<T> Eq for Shared<T> {}

impl<T> PartialOrd for Shared<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Shared<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.hash.cmp(&other.0.hash)
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:016x}", self.0.hash)
    }
}

/// The same for the same content, in every process.
pub fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

const SHARDS: usize = 64;

/// What a pure function has answered, by the hash of what it was asked.
pub struct Memo<V> {
    shards: [Mutex<HashMap<u64, V>>; SHARDS],
}

impl<V: Clone> Memo<V> {
    pub fn known(&self, key: u64) -> Option<V> {
        self.shard(key).get(&key).cloned()
    }

    pub fn keep(&self, key: u64, value: V) {
        self.shard(key).insert(key, value);
    }

    pub fn get(&self, key: u64, answer: impl FnOnce() -> V) -> V {
        if let Some(known) = self.known(key) {
            return known;
        }
        let value = answer();
        self.keep(key, value.clone());
        value
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: u64) -> std::sync::MutexGuard<'_, HashMap<u64, V>> {
        lock(&self.shards[(key >> 58) as usize])
    }
}

impl<V> Default for Memo<V> {
    fn default() -> Self {
        Memo { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
