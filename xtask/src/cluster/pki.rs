//! The certificates of one cluster: one authority, made when the cluster starts and thrown away with it.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

/// A certificate authority whose files lie in one directory.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Who a certificate speaks for: user and group in Kubernetes' terms.
pub struct Subject<'a> {
    pub user: &'a str,
    /// At most one: a certificate's organisation.
    pub group: Option<&'a str>,
}

/// The administrator: bound to everything by the API server itself.
pub const ADMIN: Subject<'static> = Subject { user: "admin", group: Some("system:masters") };

impl Authority {
    /// Makes an authority and writes `ca.crt` and `ca.key` to `dir`, together with the key pair that signs
    /// service account tokens, `sa.key` and `sa.pub`.
    ///
    /// # Errors
    /// Of the file system.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        write_secret(&dir.join("ca.crt"), &certificate)?;
        write_secret(&dir.join("ca.key"), &key.serialize_pem())?;

        let tokens = KeyPair::generate()?;
        write_secret(&dir.join("sa.key"), &tokens.serialize_pem())?;
        write_secret(&dir.join("sa.pub"), &tokens.public_key_pem())?;
        Ok(Self { dir: dir.to_owned(), certificate, issuer: Issuer::new(params, key) })
    }

    /// Writes `NAME.crt` and `NAME.key` for a server that is reached by the given names and addresses.
    ///
    /// # Errors
    /// If a name is not valid in a certificate, or of the file system.
    pub fn server(&self, name: &str, subject: &Subject<'_>, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (certificate, key) = self.issue(subject, names, ExtendedKeyUsagePurpose::ServerAuth)?;
        self.write_pair(name, &certificate, &key)
    }

    /// Writes `NAME.crt` and `NAME.key` for a client.
    ///
    /// # Errors
    /// Of the file system.
    pub fn client(&self, name: &str, subject: &Subject<'_>) -> Result<()> {
        let (certificate, key) = self.issue(subject, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        self.write_pair(name, &certificate, &key)
    }

    /// A kubeconfig (JSON, which is YAML) with the client's certificate inside, so that it can be moved.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn kubeconfig(&self, server: &str, subject: &Subject<'_>) -> Result<String> {
        let (certificate, key) = self.issue(subject, Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lethe",
            "contexts": [{"name": "lethe", "context": {"cluster": "lethe", "user": subject.user}}],
            "clusters": [{"name": "lethe", "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(&self.certificate),
            }}],
            "users": [{"name": subject.user, "user": {
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key),
            }}],
        });
        Ok(format!("{config:#}\n"))
    }

    fn issue(
        &self,
        subject: &Subject<'_>,
        names: Vec<String>,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<(String, String)> {
        let mut params = CertificateParams::new(names)
            .with_context(|| format!("cannot make a certificate for {}", subject.user))?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject.user);
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn write_pair(&self, name: &str, certificate: &str, key: &str) -> Result<()> {
        write_secret(&self.dir.join(format!("{name}.crt")), certificate)?;
        write_secret(&self.dir.join(format!("{name}.key")), key)
    }
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// Of the file system, with the path.
pub fn write_secret(path: &Path, content: &str) -> Result<()> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_its_server_and_carries_its_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(dir.path()).unwrap();
        let text = authority.kubeconfig("https://127.0.0.1:6443", &ADMIN).unwrap();
        let config: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://127.0.0.1:6443");
        let key = config["users"][0]["user"]["client-key-data"].as_str().unwrap();
        let key = String::from_utf8(STANDARD.decode(key).unwrap()).unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        Authority::create(dir.path()).unwrap().client("kubelet", &ADMIN).unwrap();
        for file in ["ca.key", "sa.key", "kubelet.key"] {
            let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file} has mode {mode:o}");
        }
    }
}
