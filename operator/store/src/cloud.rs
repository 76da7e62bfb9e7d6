//! Stores beyond one machine: buckets of S3 and of what speaks like it, of Google and of Azure.
//!
//! Where the bucket is and who asks for it is said by the variables of each provider's own tools, such as
//! `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` or `AWS_REGION`: in the environment, or in files of these names in the folder that
//! [`CREDENTIALS`] names, as a Secret is mounted. The folder is read each time that a store is opened, so that credentials
//! can be changed without a restart.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use object_store::{
    ObjectStore, ObjectStoreScheme, RetryConfig, aws::AmazonS3Builder, azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
};

use crate::error::{Error, Problem, Result};

pub use lethe_api::contract::STORE_CREDENTIALS as CREDENTIALS;

/// Larger objects are sent in parts of this size. S3 takes ten thousand parts, and no object of more than 5 GiB as a whole.
pub(crate) const PART: usize = 64 << 20;

/// A server that is away is given up after this time: whoever asked knows how to wait, and shows that it does.
const PATIENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 6;

/// Variables of the environment, and over them those of the folder with credentials.
pub(crate) type Options = BTreeMap<String, String>;

/// What the environment of this process says.
pub(crate) fn options(uri: &str) -> Result<Options> {
    let mut options: Options = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|of| name.starts_with(of)))
        .collect();
    if let Some(folder) = std::env::var_os(CREDENTIALS).filter(|folder| !folder.is_empty()) {
        options.extend(files(uri, Path::new(&folder))?);
    }
    Ok(options)
}

/// A variable for each file. What begins with a dot is the kubelet's own.
fn files(uri: &str, folder: &Path) -> Result<Options> {
    let refuse = |path: &Path, error: std::io::Error| Error::Uri {
        uri: uri.into(),
        reason: format!("{CREDENTIALS} names {}, which cannot be read: {error}", path.display()),
    };
    let mut found = Options::new();
    for entry in fs::read_dir(folder).map_err(|error| refuse(folder, error))? {
        let path = entry.map_err(|error| refuse(folder, error))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".").to_owned();
        if name.starts_with('.') || path.is_dir() {
            continue;
        }
        let value = fs::read_to_string(&path).map_err(|error| refuse(&path, error))?;
        found.insert(name, value.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(found)
}

/// Each provider has a builder of its own, and all are used alike.
macro_rules! build {
    ($builder:ty, $uri:expr, $options:expr) => {{
        let named = <$builder>::new().with_url($uri).with_retry(retry());
        let known = |name: &str| name.to_ascii_lowercase().parse().ok();
        let options = $options.into_iter().filter_map(|(name, value)| Some((known(&name)?, value)));
        let all = options.fold(named, |builder, (key, value)| builder.with_config(key, value));
        all.build().map(|store| Arc::new(store) as Arc<dyn ObjectStore>)
    }};
}

pub(crate) fn open(scheme: &ObjectStoreScheme, uri: &str, options: Options) -> Result<Arc<dyn ObjectStore>> {
    // The process may have chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let built = match scheme {
        ObjectStoreScheme::GoogleCloudStorage => build!(GoogleCloudStorageBuilder, uri, options),
        ObjectStoreScheme::MicrosoftAzure => build!(MicrosoftAzureBuilder, uri, options),
        _ => build!(AmazonS3Builder, uri, options),
    };
    built.map_err(|error| Error::Uri { uri: uri.into(), reason: error.to_string() })
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: ATTEMPTS, retry_timeout: PATIENCE, ..RetryConfig::default() }
}

/// What a provider says in words only: that there is no such bucket, rather than no such object in it; and, of a list, that
/// it may not be seen.
pub(crate) fn problem(words: &str) -> Option<Problem> {
    const PROBLEMS: [(&str, Problem); 5] = [
        ("NoSuchBucket", Problem::NoBucket),
        ("ContainerNotFound", Problem::NoBucket),
        ("specified bucket does not exist", Problem::NoBucket),
        ("status code: 401", Problem::Unauthorized),
        ("status code: 403", Problem::Unauthorized),
    ];
    PROBLEMS.iter().find(|(said, _)| words.contains(said)).map(|(_, problem)| *problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_secret_is_read_and_the_kubelets_own_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("..2026")).unwrap();
        fs::write(folder.path().join("..data"), "of the kubelet").unwrap();
        fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), "somebody\n").unwrap();
        let found = files("s3://bucket", folder.path()).unwrap();
        assert_eq!(found, Options::from([("AWS_ACCESS_KEY_ID".into(), "somebody".into())]));
    }

    #[test]
    fn a_folder_of_credentials_that_is_not_there_is_named() {
        let error = files("s3://bucket", Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(error.contains("/no/such/folder") && error.contains(CREDENTIALS), "{error}");
    }

    #[test]
    fn every_provider_is_opened_by_its_own_variables() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let key = of(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("UNKNOWN", "c")]);
        open(&ObjectStoreScheme::AmazonS3, "s3://bucket/folder", key).unwrap();
        let key = of(&[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "Yg==")]);
        open(&ObjectStoreScheme::MicrosoftAzure, "az://container/folder", key).unwrap();
        open(&ObjectStoreScheme::GoogleCloudStorage, "gs://bucket/folder", Options::new()).unwrap();
        // Azure cannot say where a container is without an account.
        let none = open(&ObjectStoreScheme::MicrosoftAzure, "az://container/folder", Options::new());
        assert!(matches!(none, Err(Error::Uri { .. })));
    }
}
