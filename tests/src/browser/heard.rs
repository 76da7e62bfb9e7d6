//! What the browser complains of while it loads a page: what a person would find in its console.

use serde_json::Value;

use super::pipe::Event;

/// What is wrong by this event, on the page at `url`.
pub(super) fn complaint(event: &Event, url: &str) -> Option<String> {
    let Event { method, params } = event;
    let text = |pointer: &str| params.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match method.as_str() {
        "Runtime.consoleAPICalled" if matches!(text("/type"), "error" | "warning" | "assert") => {
            Some(format!("the page logs: {}", params["args"]))
        }
        "Runtime.exceptionThrown" => Some(format!("a script fails: {}", params["exceptionDetails"])),
        "Log.entryAdded" if matches!(text("/entry/level"), "error" | "warning") => {
            Some(format!("the browser logs: {} {}", text("/entry/text"), text("/entry/url")))
        }
        "Network.loadingFailed" => Some(format!("something is not loaded: {}", text("/errorText"))),
        "Network.responseReceived" if params["response"]["status"].as_u64() >= Some(400) => {
            Some(format!("{} is answered with {}", text("/response/url"), params["response"]["status"]))
        }
        "Network.requestWillBeSent" if !is_own(text("/request/url"), url) => {
            Some(format!("it asks others: {}", text("/request/url")))
        }
        _ => None,
    }
}

/// Whether a page may ask for this: what is in it, itself, and what the server has that it came from.
fn is_own(asked: &str, page: &str) -> bool {
    let server = page.strip_prefix("http://").and_then(|rest| rest.split('/').next());
    let from_server = server.is_some_and(|server| asked.starts_with(&format!("http://{server}/")));
    asked == page || asked.starts_with("data:") || from_server
}
