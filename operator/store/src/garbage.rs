//! What is in the store, and what of it nobody needs any more.
//!
//! Nothing here knows who needs what: that is said by whoever asks, as a set of digests. What was written a short time ago is
//! left alone whatever is said, since a trainer names its bundle only after it has written it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::SystemTime,
};

use lethe_api::contract::{Digest, Manifest, Record};

use crate::{
    error::{Error, Result},
    objects::Entry,
    store::Store,
};

/// One thing in the store, however many objects it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    /// Its name; of scratch that of the plan, and of evidence that of the bundle that it is about.
    pub digest: Digest,
    pub bytes: u64,
    /// When the last of its objects was written.
    pub written: SystemTime,
    /// Its objects, relative to the folder of its kind.
    objects: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bundle,
    Record,
    Blob,
    Scratch,
    /// All of it about one bundle.
    Evidence,
}

impl Kind {
    const ALL: [Self; 5] = [Kind::Bundle, Kind::Record, Kind::Blob, Kind::Scratch, Kind::Evidence];

    fn folder(self) -> &'static str {
        match self {
            Kind::Bundle => "bundles",
            Kind::Record => "records",
            Kind::Blob => "blobs",
            Kind::Scratch => "scratch",
            Kind::Evidence => "evidence",
        }
    }

    /// The digest by which an object of this kind is named: that of its folder, or of itself up to the extension.
    fn digest(self, object: &str) -> Option<Digest> {
        let first = object.split('/').next()?;
        Digest::from_hex(match self {
            Kind::Record => first.split('.').next()?,
            Kind::Bundle | Kind::Blob | Kind::Scratch | Kind::Evidence => first,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bundle => "bundle",
            Kind::Record => "record",
            Kind::Blob => "blob",
            Kind::Scratch => "scratch",
            Kind::Evidence => "evidence",
        })
    }
}

/// What nobody needs: it is not in `needed`, and was written before `before`.
pub fn garbage<'a>(items: &'a [Item], needed: &BTreeSet<Digest>, before: SystemTime) -> Vec<&'a Item> {
    items.iter().filter(|item| item.written < before && !needed.contains(&item.digest)).collect()
}

impl Store {
    /// Everything in the store that has a digest for a name. Of what else lies there nothing is said, so that it stays.
    pub async fn inventory(&self) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for kind in Kind::ALL {
            let entries = self.objects.below(kind.folder()).entries().await?;
            items.extend(gathered(kind, entries));
        }
        Ok(items)
    }

    /// Adds the records that name something in `ledger`, since they say why it is there; and whatever the needed records, and
    /// the evidence about needed bundles, name, which is needed with them.
    pub async fn add_records(
        &self,
        items: &[Item],
        ledger: &BTreeSet<Digest>,
        needed: &mut BTreeSet<Digest>,
    ) -> Result<()> {
        let is_about = |item: &&Item| {
            item.kind == Kind::Evidence && (needed.contains(&item.digest) || ledger.contains(&item.digest))
        };
        let mut named_by_evidence = BTreeSet::new();
        for bundle in items.iter().filter(is_about).map(|item| &item.digest) {
            for envelope in self.envelopes(bundle).await? {
                // What nobody can read names nothing, whoever has put it there.
                let statement = lethe_evidence::payload(&envelope).unwrap_or_default();
                named_by_evidence.extend(Digest::named_in(&String::from_utf8_lossy(&statement)));
            }
        }
        needed.extend(named_by_evidence);
        let mut records = BTreeMap::new();
        for record in items.iter().filter(|item| item.kind == Kind::Record).map(|item| &item.digest) {
            let read = self.get_record(record, Record::MAX_BYTES).await;
            if let Err(error @ (Error::Unavailable { .. } | Error::Unusable { .. } | Error::Uri { .. })) =
                read
            {
                return Err(error);
            }
            let named = |bytes: Vec<u8>| -> BTreeSet<Digest> {
                Digest::named_in(&String::from_utf8_lossy(&bytes)).collect()
            };
            records.insert(record, read.map(named));
        }
        let reasons =
            records.iter().filter(|(_, named)| named.as_ref().is_ok_and(|named| !named.is_disjoint(ledger)));
        needed.extend(reasons.map(|(record, _)| (*record).clone()));
        while let Some(record) = records.keys().find(|record| needed.contains(**record)).copied() {
            // What a damaged one named is not known: then nothing may go before somebody has looked.
            if let Some(named) = records.remove(record) {
                needed.extend(named?);
            }
        }
        Ok(())
    }

    /// Removes an item: of a bundle its manifest first, so that it is there whole or not at all.
    pub async fn remove(&self, item: &Item) -> Result<()> {
        let folder = self.objects.below(item.kind.folder());
        let is_manifest = |object: &&String| object.ends_with(Manifest::FILE);
        let (first, rest): (Vec<_>, Vec<_>) = item.objects.iter().partition(is_manifest);
        for object in first.into_iter().chain(rest) {
            match object.rsplit_once('/') {
                None => folder.remove(object).await?,
                Some((below, name)) => {
                    below
                        .split('/')
                        .fold(folder.clone(), |folder, part| folder.below(part))
                        .remove(name)
                        .await?;
                }
            }
        }
        Ok(())
    }
}

fn gathered(kind: Kind, entries: Vec<Entry>) -> impl Iterator<Item = Item> {
    let mut items: BTreeMap<Digest, Item> = BTreeMap::new();
    for entry in entries {
        let Some(digest) = kind.digest(&entry.name) else { continue };
        let item = items.entry(digest.clone()).or_insert_with(|| Item {
            kind,
            digest,
            bytes: 0,
            written: entry.written,
            objects: Vec::new(),
        });
        item.bytes += entry.bytes;
        item.written = item.written.max(entry.written);
        item.objects.push(entry.name);
    }
    items.into_values()
}
