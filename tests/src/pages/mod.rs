//! The pages for each kind of person, in the hands of somebody who types every command on them: the API server, the operator,
//! `kubectl`, `kubectl lethe`, Helm and promtool are real, and there is no node ([`stand_in`]).

mod blocks;
mod desk;
mod shown;
mod stand_in;

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

pub use self::desk::Desk;
use self::{
    blocks::{Block, Kind},
    stand_in::StandIn,
};
use crate::{Server, Tier, World, place::apply, rights::Reach, server::repository};

/// The namespace on every page.
const STUDIO: &str = "studio";
/// The page that begins with an empty cluster. All others begin with what it leaves after this heading.
const FIRST: (&str, &str) = ("platform-engineer.md", "Put the model under Lethe");

/// A page in `docs/`.
pub struct Page {
    name: &'static str,
    blocks: Vec<Block>,
}

/// A cluster and a folder in which somebody reads pages.
pub struct Reader {
    world: Arc<World>,
    desk: Desk,
    _stand_in: StandIn,
}

impl Page {
    /// # Errors
    /// If it cannot be read, or has a block that is neither run nor compared.
    pub fn open(name: &'static str) -> Result<Self> {
        let path = repository("docs").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { name, blocks: blocks::blocks(&text).with_context(|| format!("docs/{name}"))? })
    }

    /// Up to the end of what is under this heading.
    ///
    /// # Errors
    /// If nothing is.
    fn until(mut self, heading: &str) -> Result<Self> {
        let last = self.blocks.iter().rposition(|block| block.heading == heading);
        let last = last.with_context(|| format!("docs/{}: no block under {heading:?}", self.name))?;
        self.blocks.truncate(last + 1);
        Ok(self)
    }
}

/// The block of commands in `docs/PAGE` in which these words stand, for a page that nobody reads from its beginning to its end.
///
/// # Errors
/// If there is none.
pub fn commands(page: &str, words: &str) -> Result<String> {
    let path = repository("docs").join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.contains(words));
    block.map(str::to_owned).with_context(|| format!("no commands in docs/{page} say {words:?}"))
}

impl Reader {
    /// In front of an empty cluster.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn new() -> Result<Self> {
        let server = tokio::task::block_in_place(|| Server::without_definitions(Vec::new(), Vec::new()))?;
        let world = World::of_nothing(Arc::new(server), Reach::Cluster, STUDIO.into(), STUDIO.into())?;
        let world = Arc::new(world);
        apply(&world.client, None, &volume()).await.context("the volume is refused")?;
        let desk = tokio::task::block_in_place(|| Desk::new(&world))?;
        let stand_in = StandIn::start(world.clone());
        Ok(Self { world, desk, _stand_in: stand_in })
    }

    /// In front of a cluster with the operator and a model, as the platform engineer leaves it.
    ///
    /// # Errors
    /// If a command on the way fails.
    pub async fn with_a_model() -> Result<Self> {
        let (page, heading) = FIRST;
        let reader = Self::new().await?;
        reader.reads(&Page::open(page)?.until(heading)?).await?;
        Ok(reader)
    }

    /// The cluster.
    pub fn server(&self) -> &Server {
        &self.world.server
    }

    /// From here on commands are typed by this person, if they do not say otherwise.
    ///
    /// # Errors
    /// If there is nobody of that name.
    pub async fn is(&self, person: &str) -> Result<()> {
        self.types(&format!("kubectl config use-context {person}")).await
    }

    /// Types something that is on no page: what others have done before.
    ///
    /// # Errors
    /// If it fails.
    pub async fn types(&self, commands: &str) -> Result<()> {
        let said = self.desk.run(commands).await?;
        ensure!(said.ended_well, "before the page: {commands}\n{}", said.text);
        Ok(())
    }

    /// Runs every command of a page, and compares what it shows.
    ///
    /// # Errors
    /// Of the first block that fails, named by page and line, with what it printed and how the cluster looks.
    pub async fn reads(&self, page: &Page) -> Result<()> {
        match self.goes_through(page).await {
            Ok(()) => Ok(()),
            Err(error) => bail!("{error:#}\n\n{}", Server::diagnose(&self.world).await),
        }
    }

    async fn goes_through(&self, page: &Page) -> Result<()> {
        let mut transcript = Transcript::of(page)?;
        let mut printed = String::new();
        for block in &page.blocks {
            let place = format!("docs/{}:{}", page.name, block.line);
            match block.kind {
                Kind::Commands => {
                    let said = self.desk.run(&block.text).await.with_context(|| place.clone())?;
                    transcript.add(&format!("--- {place}\n{}>>>\n{}", block.text, said.text))?;
                    let at = said.failed_at.map_or_else(String::new, |line| {
                        format!(", at docs/{}:{}", page.name, block.line + line.saturating_sub(1))
                    });
                    ensure!(
                        said.ended_well,
                        "{place}: this block fails{at}\n{}\nIt printed:\n{}",
                        block.text,
                        said.text
                    );
                    printed = said.text;
                }
                Kind::Shown => {
                    let compared = shown::compare(&block.text, &printed);
                    compared
                        .with_context(|| format!("{place}: it printed\n{printed}\nand the page shows"))?;
                }
                Kind::NotRun => {}
            }
        }
        Ok(())
    }
}

/// A volume for the store: whoever waits for the chart waits for its claim.
fn volume() -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "store"},
        "spec": {
            "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteMany"], "storageClassName": "",
            "hostPath": {"path": "/artifacts"},
        },
    })
}

/// What every command printed, for whoever writes a page: in the folder that `LETHE_PAGES_OUT` names, if it is set.
struct Transcript(Option<PathBuf>);

impl Transcript {
    fn of(page: &Page) -> Result<Self> {
        let Some(folder) = std::env::var_os("LETHE_PAGES_OUT").map(PathBuf::from) else {
            return Ok(Self(None));
        };
        let file = folder.join(page.name).with_extension("txt");
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self(Some(file)))
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let Some(file) = &self.0 else { return Ok(()) };
        let so_far = fs::read_to_string(file)?;
        Ok(fs::write(file, so_far + text)?)
    }
}
