//! A real Chromium without a window: opens a page as a phone and as a desktop would, by day and by night, and says what a
//! person could not read there. [`pipe`] is how it is told, `look.js` what is looked at in the page, [`heard`] what the browser
//! complains of.

mod heard;
mod pipe;

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    task::block_in_place,
    time::timeout,
};
use xtask::{host, setup::chromium};

use self::pipe::Pipe;

/// Says what is wrong with what is shown.
const LOOK: &str = include_str!("look.js");
/// One page in one view, on a machine that has other things to do as well.
const PATIENCE: Duration = Duration::from_secs(60);
/// A folder for pictures of every page in every view, for whoever wants to see them.
const SHOTS: &str = "LETHE_SHOTS_OUT";

/// How a page is looked at.
struct View {
    name: &'static str,
    /// In CSS pixels.
    width: u32,
    height: u32,
    is_phone: bool,
    is_dark: bool,
}

impl View {
    const fn phone(name: &'static str, is_dark: bool) -> Self {
        Self { name, width: 390, height: 844, is_phone: true, is_dark }
    }

    const fn desktop(name: &'static str, is_dark: bool) -> Self {
        Self { name, width: 1280, height: 800, is_phone: false, is_dark }
    }
}

const VIEWS: [View; 4] = [
    View::phone("phone-light", false),
    View::phone("phone-dark", true),
    View::desktop("desktop-light", false),
    View::desktop("desktop-dark", true),
];

/// The browser with one tab. All of its processes end when this is dropped, and its profile is gone.
pub struct Browser {
    process: Child,
    pipe: Pipe,
    /// The session with the tab.
    tab: String,
    files: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            // Gone already is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Browser {
    /// # Errors
    /// If there is no Chromium and none can be had, or it does not start.
    pub async fn start() -> Result<Self> {
        let program = block_in_place(chromium::program)?;
        let files = tempfile::tempdir().context("cannot create a directory")?;
        let mut process = spawn(&program, files.path())?;
        let (to, from) = (process.stdin.take(), process.stdout.take());
        let pipe = Pipe::new(to.context("no pipe to it")?, from.context("no pipe from it")?);
        let mut browser = Self { process, pipe, tab: String::new(), files };
        let ready = timeout(PATIENCE, browser.open_tab()).await;
        let ready = ready.unwrap_or_else(|_| Err(anyhow::anyhow!("it does not answer")));
        ready.with_context(|| format!("{}: {}", program.display(), browser.log()))?;
        Ok(browser)
    }

    /// Opens a page in every view, and wants nothing to be wrong with it in any. `name` is what its pictures are called.
    ///
    /// # Errors
    /// Says all that is wrong.
    pub async fn reads_well(&mut self, name: &str, url: &str) -> Result<()> {
        let found = self.faults(name, url).await?;
        ensure!(found.is_empty(), "{name} has {} faults:\n{}", found.len(), found.join("\n"));
        Ok(())
    }

    /// What is wrong with a page in each view.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn faults(&mut self, name: &str, url: &str) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for view in &VIEWS {
            let look = format!("({LOOK})({})", json!({"width": view.width, "isDark": view.is_dark}));
            let (found, heard) = self.look(view, name, url, &look).await?;
            let found: Vec<String> = serde_json::from_value(found).context("look.js says no faults")?;
            all.extend(found.into_iter().chain(heard).map(|fault| format!("{}: {fault}", view.name)));
        }
        Ok(all)
    }

    /// Opens a page that is made of others' components in every view, and returns by the view's name what its promise
    /// `window.drawn` comes to. Their sizes and colours are not ours to choose, so that nobody looks at these.
    ///
    /// # Errors
    /// If it cannot be opened, the browser complains of something, or it has to be scrolled sideways.
    pub async fn drawn(&mut self, name: &str, url: &str) -> Result<Vec<(&'static str, Value)>> {
        const DRAWN: &str =
            "window.drawn.then((drawn) => ({ drawn, width: document.scrollingElement.scrollWidth }))";
        let mut all = Vec::new();
        for view in &VIEWS {
            let (mut seen, heard) = self.look(view, name, url, DRAWN).await?;
            ensure!(heard.is_empty(), "{name}, {}:\n{}", view.name, heard.join("\n"));
            let (needed, width) = (&seen["width"], view.width);
            ensure!(*needed == width, "{name}, {}: it takes {needed} px of {width}", view.name);
            all.push((view.name, seen["drawn"].take()));
        }
        Ok(all)
    }

    async fn open_tab(&mut self) -> Result<()> {
        let target = self.pipe.call(None, "Target.createTarget", json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.pipe.call(None, "Target.attachToTarget", attach).await?;
        self.tab = session["sessionId"].as_str().context("no session")?.to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(())
    }

    /// What a script says in a page, and what the browser complains of.
    async fn look(
        &mut self,
        view: &View,
        name: &str,
        url: &str,
        script: &str,
    ) -> Result<(Value, Vec<String>)> {
        let looked = timeout(PATIENCE, self.open(view, name, url, script)).await;
        let looked = looked.with_context(|| format!("{url} took longer than {PATIENCE:?}"));
        looked.flatten().with_context(|| format!("{name}, {}: {}", view.name, self.log()))
    }

    async fn open(
        &mut self,
        view: &View,
        name: &str,
        url: &str,
        script: &str,
    ) -> Result<(Value, Vec<String>)> {
        let &View { width, height, is_phone, is_dark, .. } = view;
        let scale = if is_phone { 2 } else { 1 };
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", media).await?;
        // What the page before said is not about this one.
        self.pipe.take_events();
        let opened = self.call("Page.navigate", json!({"url": url})).await?;
        ensure!(opened["errorText"].is_null(), "cannot open {url}: {}", opened["errorText"]);
        self.pipe.until("Page.loadEventFired").await?;
        let script = json!({"expression": script, "awaitPromise": true, "returnByValue": true});
        let mut seen = self.call("Runtime.evaluate", script).await?;
        ensure!(seen["exceptionDetails"].is_null(), "a script fails: {}", seen["exceptionDetails"]);
        self.keep_a_picture(&format!("{name}-{}", view.name), width).await?;
        let heard = self.pipe.take_events().into_iter().filter_map(|event| heard::complaint(&event, url));
        Ok((seen["result"]["value"].take(), heard.collect()))
    }

    async fn keep_a_picture(&mut self, name: &str, width: u32) -> Result<()> {
        let Some(folder) = std::env::var_os(SHOTS) else { return Ok(()) };
        let size = self.call("Page.getLayoutMetrics", json!({})).await?["cssContentSize"].take();
        let clip = json!({"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1});
        let all = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let shot = self.call("Page.captureScreenshot", all).await?;
        let png = STANDARD.decode(shot["data"].as_str().context("no picture")?)?;
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(Path::new(&folder).join(format!("{name}.png")), png)?)
    }

    async fn call(&mut self, method: &str, params: Value) -> Result<Value> {
        self.pipe.call(Some(&self.tab), method, params).await
    }

    /// What it said last.
    fn log(&self) -> String {
        xtask::cmd::tail(&self.files.path().join("log"))
    }
}

/// Starts it with a profile of its own in a process group of its own.
fn spawn(program: &Path, files: &Path) -> Result<Child> {
    // The browser reads from 3 and writes to 4, and a child of ours has 0 and 1.
    let mut command = Command::new("sh");
    command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >&2"#]).arg(program);
    command.args(["--remote-debugging-pipe", "--headless", "--hide-scrollbars", "--no-first-run"]);
    // It talks to nobody but this machine, and leaves nothing elsewhere.
    command.args(["--disable-background-networking", "--disable-breakpad", "--disable-component-update"]);
    command.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1").arg("--proxy-server=direct://");
    command.args(["--disable-gpu", "--disable-dev-shm-usage"]);
    command.arg(format!("--user-data-dir={}", files.join("profile").display()));
    if host::is_root() {
        // Chromium does not start otherwise. What it opens here is our own.
        command.arg("--no-sandbox");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", files).env("LANG", "C.UTF-8");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(files.join("log"))?);
    command.process_group(0).kill_on_drop(true).spawn().context("cannot start a shell")
}
