//! Server-sent events of a live view: reads a stream, and opens it again where it ended.
//!
//! Not here: what the events say.

use std::io::{self, BufRead, BufReader, Read};
use std::thread;
use std::time::Duration;

use exosphere_domain::json::{Typed, from_stored};

use crate::absence::while_absent;
use crate::client::Call;
use crate::error::Error;

/// The time after which the host ends a stream. It is shorter than the longest wait for an answer,
/// so that a connection which died in silence is noticed within a minute.
const STREAM_TIME: Duration = Duration::from_secs(45);

/// The pause before a stream that has ended is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// The longest stream that is read, in bytes.
const MAX_STREAM_BYTES: u64 = 1024 * 1024 * 1024;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    id: String,
    data: String,
}

/// Reads one stream.
struct Events<R> {
    lines: R,
}

impl<R: BufRead> Events<R> {
    /// Reads the next event; `None` at the end of the stream.
    fn next(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        let mut line = String::new();
        while self.lines.read_line(&mut line)? > 0 {
            // An event that is not whole, because the stream was cut, has no empty line after it.
            let text = line.trim_end_matches(['\n', '\r']);
            if text.is_empty() && !event.data.is_empty() {
                return Ok(Some(event));
            }
            match text.split_once(':').map(|(name, value)| (name, value.trim_start_matches(' '))) {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => event.data.push_str(data),
                // Comments, and members that this client does not know.
                _ => {}
            }
            line.clear();
        }
        Ok(None)
    }
}

/// Follows a live view until `see` returns something for an event. While the host is away, it waits
/// for it for up to a minute, and continues after the last event.
pub fn follow<'c, T: Typed, R>(
    call: impl Fn() -> Call<'c>,
    mut see: impl FnMut(T) -> Result<Option<R>, Error>,
    show_absence: impl Fn(),
) -> Result<R, Error> {
    let mut last = None;
    loop {
        let open = || {
            let time = STREAM_TIME.as_millis().to_string();
            let call = call().query(&[("for_ms", Some(time))]).last_event(last.as_deref());
            call.stream()
        };
        // The first call fails at once: the host may never have been there.
        let stream = if last.is_none() { open()? } else { while_absent(open, &show_absence)? };
        let mut events = Events { lines: BufReader::new(stream.take(MAX_STREAM_BYTES)) };
        // A stream that breaks is opened again.
        while let Ok(Some(event)) = events.next() {
            let seen = from_stored(&event.data).map_err(|error| {
                Error::Internal(format!(
                    "an event of the host is not what this client expects: {error}"
                ))
            })?;
            last = Some(event.id);
            if let Some(result) = see(seen)? {
                return Ok(result);
            }
        }
        thread::sleep(REOPEN_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let mut events = Events { lines: text.as_bytes() };
        std::iter::from_fn(|| events.next().unwrap()).map(|event| (event.id, event.data)).collect()
    }

    #[test]
    fn events_are_separated_by_empty_lines() {
        let text = "retry: 1000\n\n: ping\n\nid: 1-a\nevent: run\ndata: {\"a\":\ndata:1}\n\n\
                    : ping\n\nid: 2-b\r\ndata: {}\r\n\r\nid: 3\ndata: {\"cut";
        let expected = [("1-a", "{\"a\":1}"), ("2-b", "{}")];
        assert_eq!(read(text), expected.map(|(id, data)| (id.to_owned(), data.to_owned())));
    }
}
