//! The audit log in a bucket of a real S3 server.

use std::sync::Arc;

use anyhow::{Result, ensure};
use lethe_evidence::{SigningKey, TrustedKeys};
use lethe_store::log::{Log, LogError, Writer};
use lethe_tests::{World, audit_log::ORIGIN, bucket::Bucket};
use lethe_transparency::{Entry, Said, Writer as Signature};

pub async fn an_audit_log_in_a_bucket_has_one_history(world: &World) -> Result<()> {
    let bucket = Bucket::start().await?;
    let key = Arc::new(SigningKey::load(&world.key("log")?.private)?);
    let open = || async {
        let log = log(&bucket)?;
        Ok::<_, anyhow::Error>(Writer::open(log, ORIGIN, key.clone(), TrustedKeys::only(key.public())).await?)
    };
    let (mut one, mut two) = (open().await?, open().await?);
    append(&mut one, "one", 3).await?;
    let overtaken = append(&mut two, "two", 1).await;
    ensure!(matches!(overtaken, Err(LogError::Overtaken)), "{overtaken:?}");
    for _ in 0..9 {
        append(&mut one, "one", 33).await?;
    }
    one.show().await?;
    let mut two = open().await?;
    ensure!(two.size() == 300, "{} entries", two.size());
    append(&mut two, "two", 1).await?;
    // It dies while somebody appends. Whether it was written, the next try tells.
    two.propose(&[entry("two")])?;
    bucket.die().await?;
    let away = two.commit().await;
    ensure!(matches!(away, Err(LogError::Store(_))), "{away:?}");
    bucket.come_back().await?;
    two.commit().await?;
    two.show().await?;
    ensure!(open().await?.size() == 302);

    let reading = log(&bucket)?.read(ORIGIN, &TrustedKeys::only(key.public())).await?;
    ensure!(reading.faults.is_empty(), "{:#?}", reading.faults);
    let by = |who: &str| reading.entries.iter().filter(|entry| entry.by.replica == who).count();
    ensure!((by("one"), by("two")) == (300, 2), "{} and {}", by("one"), by("two"));
    Ok(())
}

fn log(bucket: &Bucket) -> Result<Log> {
    Ok(Log::open_with(&format!("{}/log", bucket.uri()), bucket.variables())?)
}

fn entry(by: &str) -> Entry {
    let by = Signature { version: "0.1.0".into(), replica: by.into() };
    Entry { at: "2026-11-24T21:00:00Z".into(), by, late: false, said: Said::Began }
}

async fn append(writer: &mut Writer, by: &str, entries: usize) -> Result<(), LogError> {
    let entries = vec![entry(by); entries];
    let mut rest = &entries[..];
    while !rest.is_empty() {
        let taken = writer.propose(rest)?;
        writer.commit().await?;
        rest = &rest[taken..];
    }
    Ok(())
}
