//! The DevTools protocol over two pipes: JSON, each message ended by a zero byte. No port is opened, so that nobody else can
//! tell the browser anything, and a browser whose pipes are closed ends by itself. There are crates for this; they bring a websocket
//! and the whole protocol as generated code, and a dozen methods need neither.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{ChildStdin, ChildStdout},
};

/// Both ends, and what happened that nobody has looked at yet.
pub(super) struct Pipe {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    calls: u64,
    events: Vec<Event>,
}

/// Something that happened in the browser.
#[derive(Debug)]
pub(super) struct Event {
    pub method: String,
    pub params: Value,
}

/// An answer, which has the number of its call, or an event.
#[derive(Deserialize)]
struct Message {
    id: Option<u64>,
    #[serde(default)]
    result: Value,
    error: Option<Value>,
    method: Option<String>,
    #[serde(default)]
    params: Value,
}

impl Pipe {
    pub fn new(to: ChildStdin, from: ChildStdout) -> Self {
        Self { to, from: BufReader::new(from), calls: 0, events: vec![] }
    }

    /// Calls a method of the browser, or of a tab if a session with one is named, and waits for the answer.
    pub async fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value> {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = session {
            call["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&call)?;
        bytes.push(0);
        self.to.write_all(&bytes).await.with_context(|| format!("cannot call {method}"))?;
        loop {
            let message = self.read().await.with_context(|| format!("no answer to {method}"))?;
            if message.id != Some(self.calls) {
                continue;
            }
            return match message.error {
                Some(error) => bail!("{method}: {error}"),
                None => Ok(message.result),
            };
        }
    }

    /// Waits for an event of this name that came since they were last taken.
    pub async fn until(&mut self, method: &str) -> Result<()> {
        while !self.events.iter().any(|event| event.method == method) {
            self.read().await.with_context(|| format!("no {method}"))?;
        }
        Ok(())
    }

    /// Everything that happened since this was last asked.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The next message. Events are kept.
    async fn read(&mut self) -> Result<Message> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).await?;
        ensure!(bytes.pop() == Some(0), "the browser has ended");
        let mut message: Message = serde_json::from_slice(&bytes)?;
        if let Some(method) = message.method.take() {
            self.events.push(Event { method, params: message.params.take() });
        }
        Ok(message)
    }
}
