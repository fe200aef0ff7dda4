//! A reader of server-sent events.
//!
//! Not here: the reader of the command line, which tests run as it is.

use std::io::{BufRead, BufReader};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use reqwest::blocking::Response;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;

use crate::Host;

/// An event, with the time at which its reader got it.
#[derive(Debug, Clone)]
pub struct Event {
    /// The id.
    pub id: String,
    /// The kind: `run` or `runs`.
    pub kind: String,
    /// The snapshot.
    pub data: Value,
    /// The time of receipt, in milliseconds since 1970.
    pub at: i64,
}

/// An open stream of events.
#[derive(Debug)]
pub struct Events(BufReader<Response>);

impl Events {
    /// Opens a stream of a host, which continues after the event `last`.
    ///
    /// # Errors
    /// If the host refuses.
    pub fn open(host: &Host, path: &str, last: Option<&str>) -> Result<Events> {
        let request = host.request("GET", path)?;
        let request = match last {
            Some(last) => request.header("Last-Event-ID", last),
            None => request,
        };
        Events::of(request.send()?)
    }

    /// Reads the events of an answer.
    ///
    /// # Errors
    /// If it is no stream of events.
    pub fn of(answer: Response) -> Result<Events> {
        if !answer.status().is_success() {
            bail!("{}: {}", answer.status(), answer.text()?);
        }
        let kind = answer.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes());
        ensure!(kind == Some(b"text/event-stream"), "{kind:?}");
        Ok(Events(BufReader::new(answer)))
    }

    /// Waits for the next event; `None` at the end of the stream.
    ///
    /// # Errors
    /// If the stream breaks, or an event is not well formed.
    pub fn read(&mut self) -> Result<Option<Event>> {
        let (mut id, mut kind, mut data) = (String::new(), String::new(), String::new());
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let text = line.strip_suffix('\n').context("a line without an end")?;
            match text.split_once(": ") {
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("event", value)) => value.clone_into(&mut kind),
                Some(("data", value)) => value.clone_into(&mut data),
                Some(("retry" | "", _)) => {}
                None if text.is_empty() && data.is_empty() => {}
                None if text.is_empty() => {
                    let (data, at) = (serde_json::from_str(&data)?, now()?);
                    return Ok(Some(Event { id, kind, data, at }));
                }
                _ => bail!("this is no line of an event: {text:?}"),
            }
        }
    }

    /// Waits for an event that is as wanted, and returns it.
    ///
    /// # Errors
    /// If the stream ends before.
    pub fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Result<Event> {
        while let Some(event) = self.read()? {
            if wanted(&event.data) {
                return Ok(event);
            }
        }
        bail!("the stream has ended")
    }
}

/// Returns the time of this machine, which is that of its hosts, too.
#[allow(clippy::disallowed_methods)]
fn now() -> Result<i64> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}
