//! What objects of a kind have in common: the names of their fields, and most of what is in them. LZ4 needs it once instead of in
//! each object.

use std::sync::{Arc, Mutex, PoisonError};

/// More of an object is not common. LZ4 looks back 64 KiB.
const MOST: usize = 16 * 1024;

/// An object of the kind, as it is written: the first one, and then one that is twice as long, until none is.
pub struct Dictionary(Mutex<Option<Arc<[u8]>>>);

impl Dictionary {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The one to pack these bytes with. It has to be kept with what is packed: it is another one for the next object, maybe.
    pub fn fit_for(&self, bytes: &[u8]) -> Arc<[u8]> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, length) = (bytes.len().min(MOST), known.as_ref().map_or(0, |known| known.len()));
        match &*known {
            Some(known) if 2 * length > first => known.clone(),
            _ => known.insert(bytes[..first].into()).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_becomes_what_is_much_longer_and_stays_otherwise() {
        let dictionary = Dictionary::new();
        let length = |bytes: usize| dictionary.fit_for(&vec![b'x'; bytes]).len();
        assert_eq!([100, 150, 40, 201, 300].map(length), [100, 100, 100, 201, 201]);
        assert_eq!([MOST * 3, MOST * 9, 100].map(length), [MOST; 3]);
    }
}
