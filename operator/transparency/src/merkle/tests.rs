use proptest::prelude::*;

use super::*;

/// The leaves and heads with which implementations of RFC 6962 test themselves.
const LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn published() -> Vec<Hash> {
    LEAVES.iter().map(|hex| leaf(&hex::decode(hex).unwrap())).collect()
}

fn hash(hex: &str) -> Hash {
    Hash(hex::decode(hex).unwrap().try_into().unwrap())
}

fn tree(leaves: &[Hash]) -> Tree {
    let mut tree = Tree::default();
    leaves.iter().for_each(|leaf| tree.push(*leaf));
    tree
}

fn numbered(size: u64) -> Vec<Hash> {
    (0..size).map(|n| leaf(&n.to_be_bytes())).collect()
}

#[test]
fn the_heads_of_the_published_tree_are_the_published_ones() {
    assert_eq!(empty(), hash("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    let (mut edge, tree) = (Edge::default(), tree(&published()));
    assert_eq!((edge.root(), tree.root(0)), (empty(), Some(empty())));
    for (leaf, root) in published().into_iter().zip(ROOTS) {
        edge.push(leaf);
        assert_eq!(edge.root(), hash(root));
        assert_eq!(tree.root(edge.size()), Some(hash(root)));
    }
}

/// RFC 6962, section 2.1.3: which nodes the proofs of its example tree of seven leaves are made of.
#[test]
fn the_proofs_of_the_example_tree_are_the_published_ones() {
    let leaves = numbered(7);
    let tree = tree(&leaves);
    let [a, b, c, d, e, f, j] = leaves[..] else { unreachable!() };
    let (g, h, i) = (node(a, b), node(c, d), node(e, f));
    let (k, l) = (node(g, h), node(i, j));
    assert_eq!(tree.root(7), Some(node(k, l)));
    assert_eq!(tree.inclusion(0, 7).unwrap(), [b, h, l]);
    assert_eq!(tree.inclusion(3, 7).unwrap(), [c, g, l]);
    assert_eq!(tree.inclusion(4, 7).unwrap(), [f, j, k]);
    assert_eq!(tree.inclusion(6, 7).unwrap(), [i, k]);
    assert_eq!(tree.consistency(3, 7).unwrap(), [c, d, g, l]);
    assert_eq!(tree.consistency(4, 7).unwrap(), [l]);
    assert_eq!(tree.consistency(6, 7).unwrap(), [i, j, k]);
}

#[test]
fn every_leaf_is_included_and_every_prefix_is_continued() {
    let leaves = numbered(70);
    let tree = tree(&leaves);
    for size in 0..=70 {
        let root = tree.root(size).unwrap();
        for index in 0..size {
            let proof = tree.inclusion(index, size).unwrap();
            assert!(is_included(leaves[index as usize], index, size, root, &proof), "{index} of {size}");
            assert!(!is_included(leaf(b"another"), index, size, root, &proof));
            assert!(!is_included(leaves[index as usize], index + 1, size, root, &proof));
        }
        assert_eq!(tree.inclusion(size, size), None);
        for first in 0..=size {
            let proof = tree.consistency(first, size).unwrap();
            let first = (first, tree.root(first).unwrap());
            assert!(is_consistent(first, (size, root), &proof), "{first:?} of {size}");
            if first.0 > 0 {
                assert!(!is_consistent((first.0, leaf(b"another")), (size, root), &proof));
            }
            if first.0 != 0 {
                assert!(!is_consistent(first, (size, leaf(b"another")), &proof));
            }
        }
        assert_eq!(tree.consistency(size + 1, size), None);
    }
    assert_eq!((tree.root(71), tree.inclusion(0, 71), tree.consistency(3, 71)), (None, None, None));
}

proptest! {
    #[test]
    fn the_edge_alone_knows_the_root_of_every_tree(size in 0_u64..600, unit in 0_u32..10) {
        let leaves = numbered(size);
        let (mut edge, tree) = (Edge::default(), tree(&leaves));
        leaves.iter().for_each(|leaf| edge.push(*leaf));
        prop_assert_eq!(Some(edge.root()), tree.root(size));
        prop_assert_eq!(Edge::of(size, edge.roots().to_vec()), Some(edge.clone()));
        prop_assert_eq!(Edge::of(size + 1, edge.roots().to_vec()).is_some(), (size + 1).count_ones() == size.count_ones());
        let down = edge.down_to_multiple_of(1 << unit);
        prop_assert_eq!(Some(down.root()), tree.root(size - size % (1 << unit)));
    }

    #[test]
    fn no_other_proof_passes(size in 2_u64..200, index in 0_u64..200, byte in 0_usize..32, bit in 0_u8..8, which in 0_usize..10) {
        let leaves = numbered(size);
        let (index, tree) = (index % size, tree(&leaves));
        let root = tree.root(size).unwrap();
        let flipped = |proof: &[Hash]| {
            let mut proof = proof.to_vec();
            if let Some(hash) = (!proof.is_empty()).then(|| which % proof.len()) {
                proof[hash].0[byte] ^= 1 << bit;
            }
            proof
        };
        let proof = tree.inclusion(index, size).unwrap();
        let own = leaves[index as usize];
        prop_assert!(!is_included(own, index, size, root, &flipped(&proof)));
        prop_assert!(!is_included(own, index, size, root, &[&proof[..], &[own]].concat()));
        prop_assert!(!is_included(own, index, size, root, &proof[1..]));
        let proof = tree.consistency(index + 1, size).unwrap();
        let first = (index + 1, tree.root(index + 1).unwrap());
        if !proof.is_empty() {
            prop_assert!(!is_consistent(first, (size, root), &flipped(&proof)));
            prop_assert!(!is_consistent(first, (size, root), &proof[1..]));
        }
        prop_assert!(!is_consistent(first, (size, root), &[&proof[..], &[own]].concat()));
        prop_assert!(!is_consistent((size, root), first, &proof) || size == index + 1);
    }
}
