//! The head of a log, as <https://c2sp.org/tlog-checkpoint> writes it.

use lethe_evidence::{SigningKey, TrustedKeys};

use crate::{
    merkle::Hash,
    note::{self, NoteError},
};

/// How many entries a log has, and the hash of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    pub size: u64,
    pub root: Hash,
    /// Further lines. A checkpoint that is shown to anybody has none.
    pub extensions: Vec<String>,
}

/// Why a checkpoint does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("it is not the checkpoint of a log: {0}")]
    Malformed(&'static str),
    #[error("it is the checkpoint of the log {found:?}, not of {wanted:?}")]
    Another { found: String, wanted: String },
}

impl Checkpoint {
    /// As a signed note. Logs sign in the name of their origin.
    ///
    /// # Errors
    /// If the origin cannot be the name of a key.
    pub fn sign(&self, key: &SigningKey) -> Result<String, NoteError> {
        note::sign(&self.text(), &self.origin, key)
    }

    /// From a signed note, if it is of this log and signed by a trusted key.
    ///
    /// # Errors
    /// If it is not.
    pub fn open(bytes: &[u8], origin: &str, trusted: &TrustedKeys) -> Result<Self, CheckpointError> {
        let checkpoint = Self::parse(note::open(bytes, origin, trusted)?)?;
        match checkpoint.origin == origin {
            true => Ok(checkpoint),
            false => {
                let (found, wanted) = (checkpoint.origin.chars().take(200).collect(), origin.into());
                Err(CheckpointError::Another { found, wanted })
            }
        }
    }

    /// What a note says, **whoever signed it**: to show it, not to believe it.
    ///
    /// # Errors
    /// If it is no checkpoint.
    pub fn read(note: &[u8]) -> Result<Self, CheckpointError> {
        let text = std::str::from_utf8(note).ok().and_then(|note| Some(&note[..=note.find("\n\n")?]));
        Self::parse(text.ok_or(CheckpointError::Malformed("it is no signed note"))?)
    }

    fn text(&self) -> String {
        let head = format!("{}\n{}\n{}\n", self.origin, self.size, self.root);
        self.extensions.iter().fold(head, |text, line| text + line + "\n")
    }

    pub(crate) fn parse(text: &str) -> Result<Self, CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed("its last line has no end"))?;
        let mut lines = lines.split('\n').map(str::to_owned);
        let mut next =
            |missing| lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Malformed(missing));
        let origin = next("it names no log")?;
        let size = next("it has no size")?;
        let root = next("it has no hash")?;
        let number = size.parse::<u64>().ok().filter(|number| number.to_string() == size);
        let number = number.ok_or(CheckpointError::Malformed("its size is not a number"))?;
        let root = Hash::from_base64(&root).ok_or(CheckpointError::Malformed("its hash is none"))?;
        let extensions: Vec<String> = lines.collect();
        if extensions.iter().any(String::is_empty) {
            return Err(CheckpointError::Malformed("there is an empty line in it"));
        }
        Ok(Self { origin, size: number, root, extensions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{merkle, note::tests::key};

    fn signed(text: &str) -> Result<Checkpoint, CheckpointError> {
        let key = key(1);
        let note = note::sign(text, "lethe.dev/a", &key).unwrap();
        Checkpoint::open(note.as_bytes(), "lethe.dev/a", &TrustedKeys::only(key.public()))
    }

    /// The text of the example of the specification.
    #[test]
    fn the_published_checkpoint_is_read_and_written_as_it_is() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let checkpoint = Checkpoint::parse(text).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.text(), text);
        let more = format!("{text}more\n");
        assert_eq!(Checkpoint::parse(&more).unwrap().extensions, ["more"]);
        assert_eq!(Checkpoint::parse(&more).unwrap().text(), more);
    }

    #[test]
    fn what_is_no_checkpoint_is_refused_although_it_is_signed() {
        let root = merkle::empty().to_string();
        assert_eq!(signed(&format!("lethe.dev/a\n0\n{root}\n")).unwrap().root, merkle::empty());
        let bad = [
            "lethe.dev/a\n".to_owned(),
            "lethe.dev/a\n0\n".into(),
            format!("lethe.dev/a\n00\n{root}\n"),
            format!("lethe.dev/a\n+1\n{root}\n"),
            format!("lethe.dev/a\n-1\n{root}\n"),
            format!("lethe.dev/a\n18446744073709551616\n{root}\n"),
            format!("\n0\n{root}\n"),
            format!("lethe.dev/a\n0\n{}\n", &root[..40]),
            format!("lethe.dev/a\n0\n{root}\n\nmore\n"),
        ];
        for text in bad {
            assert!(matches!(signed(&text), Err(CheckpointError::Malformed(_))), "{text:?}");
        }
        let another = signed(&format!("lethe.dev/b\n0\n{root}\n")).unwrap_err();
        assert!(matches!(another, CheckpointError::Another { .. }), "{another}");
    }
}
