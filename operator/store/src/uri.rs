//! From a URI to the storage behind it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use object_store::{ObjectStore, ObjectStoreScheme, local::LocalFileSystem, path::Path as ObjectPath};
use url::{Position, Url};

use crate::{
    cloud::{self, Options},
    error::{Error, Problem, Result},
};

/// The `file://` URI of a folder on this machine, which need not exist.
pub fn folder_uri(folder: &Path) -> Result<String> {
    let not_a_uri = |reason: String| Error::Uri { uri: folder.display().to_string(), reason };
    let absolute = std::path::absolute(folder).map_err(|e| not_a_uri(e.to_string()))?;
    let url = Url::from_file_path(&absolute).map_err(|()| not_a_uri("it is not a path".into()))?;
    Ok(url.into())
}

/// The folder of this machine that `uri` names, if it does.
pub fn local_folder(uri: &str) -> Option<PathBuf> {
    let url = Url::parse(uri).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()
}

/// What people may write.
const KINDS: &str =
    "a store is file:///folder, s3://bucket/folder, gs://bucket/folder or az://container/folder";

/// What a URI names.
pub(crate) struct Place {
    pub storage: Arc<dyn ObjectStore>,
    pub root: ObjectPath,
    /// What people write before a path in this storage, and the storage does not.
    pub prefix: String,
    /// Larger objects are sent in parts of this size. `None` where one write takes any size.
    pub part: Option<usize>,
}

/// Opens the storage that `uri` names. Of a folder on this machine, `must_exist` asks that it is there.
/// `options` are those of a bucket.
pub(crate) fn resolve(
    uri: &str,
    must_exist: bool,
    options: impl FnOnce() -> Result<Options>,
) -> Result<Place> {
    let refuse = |reason: String| Error::Uri { uri: uri.chars().take(200).collect(), reason };
    let url = Url::parse(uri).map_err(|error| refuse(advice(uri, &error)))?;
    let (scheme, root) =
        ObjectStoreScheme::parse(&url).map_err(|error| refuse(format!("{error}; {KINDS}")))?;
    let part = match scheme {
        ObjectStoreScheme::Local => {
            let folder = url.to_file_path().map_err(|()| refuse("it is not the path of a folder".into()))?;
            if must_exist {
                check_folder(uri, &folder)?;
            }
            let storage = Arc::new(LocalFileSystem::new().with_fsync(true));
            return Ok(Place { storage, root, prefix: "/".into(), part: None });
        }
        ObjectStoreScheme::AmazonS3
        | ObjectStoreScheme::GoogleCloudStorage
        | ObjectStoreScheme::MicrosoftAzure => cloud::PART,
        // Gone with the process, and shared with nobody.
        ObjectStoreScheme::Memory => return Err(refuse("a store in memory keeps nothing".into())),
        _ => return Err(refuse(KINDS.into())),
    };
    let storage = cloud::open(&scheme, uri, options()?)?;
    let bucket = url[..Position::BeforePath].trim_end_matches('/');
    Ok(Place { storage, root, prefix: format!("{bucket}/"), part: Some(part) })
}

/// Most who give no URI give a path.
fn advice(uri: &str, error: &url::ParseError) -> String {
    match folder_uri(Path::new(uri)) {
        Ok(meant) if !uri.contains("://") => format!("it is a path; write {meant}"),
        _ => format!("{error}; write for example file:///artifacts"),
    }
}

fn check_folder(uri: &str, folder: &Path) -> Result<()> {
    let unusable = |problem| Error::Unusable { action: "open", what: uri.into(), problem };
    match std::fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(unusable(Problem::NotAFolder)),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Err(unusable(Problem::Denied)),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Err(unusable(Problem::NotAFolder)),
        Err(_) => Err(unusable(Problem::Missing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Result<Options> {
        Ok(Options::new())
    }

    #[test]
    fn what_is_not_a_store_is_refused() {
        for bad in ["", "artifacts", "/artifacts", "file://host/artifacts", "memory:///", "ftp://host/x"] {
            assert!(matches!(resolve(bad, false, none), Err(Error::Uri { .. })), "{bad}");
        }
        let missing = resolve("file:///no/such/folder", true, none);
        assert!(matches!(missing, Err(Error::Unusable { problem: Problem::Missing, .. })));
    }

    #[test]
    fn a_path_is_told_its_uri_and_another_kind_of_store_that_there_is_none() {
        let said = |uri| resolve(uri, false, none).err().unwrap().to_string();
        assert!(said("/mnt/my store").contains("it is a path; write file:///mnt/my%20store"));
        assert!(said("store").contains("; write file:///"), "{}", said("store"));
        for uri in ["https://host/store", "ftp://host/x"] {
            assert!(said(uri).contains("a store is file:///folder, s3://bucket/folder"), "{}", said(uri));
        }
    }

    #[test]
    fn a_folder_with_strange_characters_survives_its_uri() {
        let uri = folder_uri(Path::new("/tmp/a b#1")).unwrap();
        assert_eq!(Url::parse(&uri).unwrap().to_file_path().unwrap(), Path::new("/tmp/a b#1"));
    }
}
