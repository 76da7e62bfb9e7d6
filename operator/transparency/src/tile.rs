//! Full tiles and bundles of entries, as <https://c2sp.org/tlog-tiles> writes them.

use crate::merkle::{Edge, Hash};

/// Hashes in a full tile, and entries in a full bundle.
pub const WIDTH: u64 = 256;
/// Levels of the tree that a tile spans.
pub const HEIGHT: u32 = WIDTH.trailing_zeros();

/// Where tile or bundle number `index` lies: three digits a folder, all but the last with an `x` before them.
pub fn path(index: u64) -> Vec<String> {
    let mut parts = vec![format!("{:03}", index % 1000)];
    let mut rest = index / 1000;
    while rest > 0 {
        parts.insert(0, format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    parts
}

/// A tile: its hashes, one after another.
pub fn tile(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a full tile; `None` if it is none.
pub fn hashes(tile: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = tile.as_chunks::<{ Hash::BYTES }>();
    (rest.is_empty() && hashes.len() as u64 == WIDTH).then(|| hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// The one hash that a full tile is in the tile above it.
pub fn root(hashes: &[Hash]) -> Hash {
    let mut edge = Edge::default();
    hashes.iter().for_each(|hash| edge.push(*hash));
    edge.root()
}

/// A bundle: its entries, each after its length in two bytes; `None` if one is longer than that can say.
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut bundle = Vec::new();
    for entry in entries {
        bundle.extend(u16::try_from(entry.len()).ok()?.to_be_bytes());
        bundle.extend(entry);
    }
    Some(bundle)
}

/// The entries of a bundle; `None` if it is none.
pub fn entries(bundle: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut entries, mut rest) = (Vec::new(), bundle);
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length)?;
        entries.push(entry);
        rest = after;
    }
    rest.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle;

    #[test]
    fn a_tile_lies_where_the_specification_says() {
        assert_eq!(path(1_234_067), ["x001", "x234", "067"]);
        assert_eq!((path(0), path(999)), (vec!["000".to_owned()], vec!["999".to_owned()]));
        assert_eq!(path(1000), ["x001", "000"]);
    }

    #[test]
    fn a_tile_is_as_wide_as_it_should_be_and_has_the_root_of_its_leaves() {
        let leaves: Vec<_> = (0..WIDTH).map(|n| merkle::leaf(&n.to_be_bytes())).collect();
        let bytes = tile(&leaves);
        assert_eq!((bytes.len(), hashes(&bytes)), (8192, Some(leaves.clone())));
        assert!(hashes(&bytes[1..]).is_none() && hashes(&bytes[32..]).is_none());
        let mut tree = merkle::Tree::default();
        leaves.iter().for_each(|leaf| tree.push(*leaf));
        assert_eq!(Some(root(&leaves)), tree.root(WIDTH));
    }

    proptest! {
        #[test]
        fn a_bundle_has_its_entries_and_nothing_beside(all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..9)) {
            let bytes = bundle(all.iter().map(Vec::as_slice)).unwrap();
            prop_assert_eq!(entries(&bytes).unwrap(), all);
            prop_assert!(entries(&[&bytes[..], &[0]].concat()).is_none());
        }

        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(found) = entries(&bytes) {
                prop_assert_eq!(bundle(found), Some(bytes));
            }
        }
    }
}
