//! What somebody who has appended to a log finds in it later.

use std::fs;

use lethe_evidence::TrustedKeys;
use lethe_store::log::{Known, Writer};
use tempfile::TempDir;

use super::{
    ORIGIN, PUBLIC, SECOND, SECOND_PUBLIC, append, check, example, files, fill, intent, key, load, log, read,
    trust, writer,
};

fn known(writer: &Writer) -> Known {
    Known { heads: vec![writer.head()], shown: writer.shown() }
}

#[tokio::test]
async fn whoever_has_appended_sees_that_the_end_was_taken_or_is_another_with_its_checkpoint() {
    let folder = example().await;
    let known = known(&writer(folder.path()).await.unwrap());
    assert_eq!(known.shown, 520);
    check(folder.path(), &known).await.unwrap();
    let last = files(&folder.path().join("commits/002")).pop().unwrap();
    for path in [&last, &folder.path().join("checkpoint")] {
        fs::remove_file(path).unwrap();
    }
    check(folder.path(), &Known::default()).await.unwrap();
    let of_heads = Known { shown: 0, ..known.clone() };
    let error = check(folder.path(), &of_heads).await.unwrap_err();
    assert!(error.to_string().contains("it had 520 entries, and"), "{error}");
    // By somebody who has the key.
    let mut other = writer(folder.path()).await.unwrap();
    while other.size() < 530 {
        append(&mut other, &[intent("another")]).await.unwrap();
    }
    other.show().await.unwrap();
    assert_eq!(read(folder.path()).await.faults, []);
    // Whoever goes on from there knows of both, and neither does away with the other.
    let both = Known { heads: [known.heads, vec![other.head()]].concat(), shown: other.shown() };
    let error = check(folder.path(), &both).await.unwrap_err();
    assert!(error.to_string().contains("were others"), "{error}");
}

#[tokio::test]
async fn what_a_former_key_signed_is_checked_by_what_follows_it() {
    let folder = TempDir::new().unwrap();
    let mut old = writer(folder.path()).await.unwrap();
    fill(&mut old, 40, 8).await;
    old.show().await.unwrap();
    let new = load(SECOND);
    let both = trust(&[PUBLIC, SECOND_PUBLIC]);
    let mut writer = Writer::open(log(folder.path()), ORIGIN, new.clone(), both).await.unwrap();
    let only_new = TrustedKeys::only(new.public());
    let check = async |known: &Known| log(folder.path()).check(ORIGIN, &only_new, known).await;
    // Nothing that is trusted is in it, and nothing vouches for it.
    assert!(check(&Known::default()).await.is_err());
    fill(&mut writer, 120, 8).await;
    writer.show().await.unwrap();
    check(&Known::default()).await.unwrap();
    check(&known(&writer)).await.unwrap();
    let of_old = folder.path().join("commits/000/000");
    let good = fs::read(&of_old).unwrap();
    let mut bad = good.clone();
    bad[60] ^= 1;
    fs::write(&of_old, bad).unwrap();
    let error = check(&known(&writer)).await.unwrap_err();
    assert!(error.to_string().contains("commits/000/0"), "{error}");
    // One who read its key a moment later than the other still signs with the old one, and what follows vouches for it.
    fs::write(&of_old, good).unwrap();
    let both = || trust(&[PUBLIC, SECOND_PUBLIC]);
    let mut slow = Writer::open(log(folder.path()), ORIGIN, key(), both()).await.unwrap();
    append(&mut slow, &[intent("by the old one")]).await.unwrap();
    let mut last = Writer::open(log(folder.path()), ORIGIN, new, both()).await.unwrap();
    append(&mut last, &[intent("by the new one")]).await.unwrap();
    check(&known(&last)).await.unwrap();
}

/// The largest log of which the tree has three levels of tiles would take minutes: this has two, and one tile above them.
#[tokio::test]
async fn tiles_of_tiles_are_checked() {
    let folder = TempDir::new().unwrap();
    let mut writer = writer(folder.path()).await.unwrap();
    fill(&mut writer, 128 * 256, 128).await;
    writer.show().await.unwrap();
    let known = known(&writer);
    check(folder.path(), &known).await.unwrap();
    let above = folder.path().join("tile/1/000");
    let good = fs::read(&above).unwrap();
    let mut bad = good.clone();
    bad[33] ^= 1;
    fs::write(&above, bad).unwrap();
    let error = check(folder.path(), &known).await.unwrap_err();
    assert!(error.to_string().contains("tile/1/000"), "{error}");
    fs::remove_file(&above).unwrap();
    let error = check(folder.path(), &known).await.unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}
