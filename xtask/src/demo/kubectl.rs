//! The cluster, as a person talks to it: through `kubectl`.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::site::Site;
use super::timeline::typed;

/// `kubectl`, in the demo's namespace.
pub struct Kubectl<'a> {
    pub site: &'a Site,
    pub namespace: &'a str,
}

impl Kubectl<'_> {
    /// What the command printed.
    ///
    /// # Errors
    /// If it fails; the message holds what it wrote to standard error.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(words)?).trim().to_owned())
    }

    /// The object or list that the command printed.
    ///
    /// # Errors
    /// As [`Kubectl::text`].
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let bytes = self.bytes(&[words, &["-o", "json"]].concat())?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("`{}` printed no JSON", line(self.namespace, words)))
    }

    /// The exact bytes that the command printed.
    ///
    /// # Errors
    /// As [`Kubectl::text`].
    pub fn bytes(&self, words: &[&str]) -> Result<Vec<u8>> {
        run(self.command(words), None).with_context(|| failed(self.namespace, words))
    }

    /// Runs the command and shows it.
    ///
    /// # Errors
    /// As [`Kubectl::text`].
    pub fn show(&self, words: &[&str]) -> Result<String> {
        typed(&line(self.namespace, words), || self.text(words))
    }

    /// Runs the command with `input`, and shows the command.
    ///
    /// # Errors
    /// As [`Kubectl::text`].
    pub fn feed(&self, words: &[&str], input: &str) -> Result<String> {
        let fed = || run(self.command(words), Some(input)).with_context(|| failed(self.namespace, words));
        let bytes = typed(&line(self.namespace, words), fed)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// What a Service of the namespace answers at `path`, through the API server.
    ///
    /// # Errors
    /// As [`Kubectl::text`].
    pub fn service(&self, service: &str, path: &str) -> Result<Vec<u8>> {
        self.bytes(&["get", "--raw", &service_path(self.namespace, service, path)])
    }

    fn command(&self, words: &[&str]) -> Command {
        self.site.kubectl(&[&["--namespace", self.namespace], words].concat())
    }
}

/// Where the API server passes requests on to a Service's port `http`.
pub fn service_path(namespace: &str, service: &str, path: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/services/{service}:http/proxy{path}")
}

/// Runs a command to its end.
///
/// # Errors
/// If it fails: what it wrote to standard error.
pub fn run(mut command: Command, input: Option<&str>) -> Result<Vec<u8>> {
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A command that does not read to the end says why itself.
        let _ = pipe.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let errors = errors.trim();
        bail!("{}", if errors.is_empty() { output.status.to_string() } else { errors.to_owned() });
    }
    Ok(output.stdout)
}

fn failed(namespace: &str, words: &[&str]) -> String {
    format!("`{}` failed", line(namespace, words))
}

/// The command as one would type it.
fn line(namespace: &str, words: &[&str]) -> String {
    let words = words.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,%+".contains(c);
        if word.chars().all(plain) { (*word).to_owned() } else { format!("'{word}'") }
    });
    format!("kubectl -n {namespace} {}", words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["get", "--raw", &service_path("studio", "digits", "/samples/3.png?seed=0&n=12")];
        let expected = "kubectl -n studio get --raw \
                        '/api/v1/namespaces/studio/services/digits:http/proxy/samples/3.png?seed=0&n=12'";
        assert_eq!(line("studio", &words), expected);
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "read word; echo \"no $word\" >&2; exit 3"]);
        assert_eq!(run(command, Some("such thing\n")).unwrap_err().to_string(), "no such thing");
    }
}
