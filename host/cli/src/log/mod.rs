//! The host's log, on standard error. It contains much untrusted text: from databases, from the
//! engine about a guest's code, from callers. Each event is therefore one line, without a
//! character that a terminal would obey.
//!
//! Not here: the queue and the thread that write the lines (`lines`).

mod lines;

use std::backtrace::Backtrace;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::{EnvFilter, fmt};

use crate::sanitize;
use lines::Lines;

/// The log of a host. It is flushed on drop.
pub struct Log(Lines);

impl Log {
    /// Returns the number of lines that were dropped.
    pub fn dropped_lines(&self) -> Arc<AtomicU64> {
        self.0.dropped_lines()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush();
    }
}

/// Starts the log: as lines for people, or as JSON for programs.
///
/// # Errors
/// If the system cannot start its thread.
pub fn begin(json: bool) -> io::Result<Log> {
    let lines = Lines::start(io::stderr(), if json { dropped_as_json } else { dropped })?;
    let log = fmt().with_env_filter(filter()).with_ansi(is_coloured());
    // The subscriber would print its own failures to standard error, and panic if that
    // fails too.
    let log = log.log_internal_errors(false);
    let to = lines.clone();
    if json {
        log.json().with_writer(move || Json(to.clone())).init();
    } else {
        log.fmt_fields(fields()).with_writer(move || to.clone()).init();
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(Log(lines))
}

/// Logs a panic. The default hook prints it, which may block on a full pipe.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let is_wanted = std::env::var_os("RUST_BACKTRACE").is_some_and(|set| set != "0");
    let backtrace = if is_wanted { Backtrace::force_capture().to_string() } else { String::new() };
    tracing::error!(%panic, backtrace, "a thread panicked");
}

/// Returns the number of dropped lines as a log line for people.
fn dropped(lines: u64) -> String {
    format!("{} WARN exosphere: {}\n", now(), dropped_words(lines))
}

/// Returns the number of dropped lines as a JSON event for programs.
fn dropped_as_json(lines: u64) -> String {
    let event = serde_json::json!({
        "timestamp": now(),
        "level": "WARN",
        "fields": {"message": dropped_words(lines), "lines": lines},
        "target": "exosphere",
    });
    format!("{event}\n")
}

fn dropped_words(lines: u64) -> String {
    format!("{lines} lines of this log were dropped: standard error could not be written")
}

/// Returns the current time in the format of the log.
fn now() -> String {
    let mut text = String::new();
    // A write to a string cannot fail.
    let _ = SystemTime.format_time(&mut fmt::format::Writer::new(&mut text));
    text
}

/// Returns whether the log is coloured: only on a terminal, since a file would keep the
/// escape sequences, and not if the user disabled colours (<https://no-color.org>).
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

fn filter() -> EnvFilter {
    let filter = EnvFilter::try_from_env("EXOSPHERE_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info,sqlx::postgres::notice=warn"));
    let off = [
        // It would log an unknown parameter, which may be a password under a mistyped name.
        "sqlx_postgres::options=off",
        // It logs each handshake with a server that it does not trust; the error says the same.
        "rustls_platform_verifier=off",
    ];
    let directives = off.iter().filter_map(|directive| directive.parse().ok());
    directives.fold(filter, EnvFilter::add_directive)
}

/// Formats the message and the fields of an event as `words name=value ..`. (The
/// default formatter escapes control sequences, but keeps line breaks.)
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let format_field = debug_fn(|writer, field, value| {
        let mut formatted = String::new();
        write!(formatted, "{value:?}")?;
        let formatted = sanitize::line(&formatted);
        match field.name() {
            "message" => write!(writer, "{formatted}"),
            name => write!(writer, "{name}={formatted}"),
        }
    });
    format_field.delimited(" ")
}

/// A writer that takes each JSON event in one piece. It escapes characters that JSON allows and
/// a terminal obeys: the C1 control characters and direction marks.
struct Json<W>(W);

impl<W: Write> Write for Json<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(sanitize::json(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn dropped_lines_are_reported_as_an_event() {
        let event: serde_json::Value =
            exosphere_domain::json::read_stored(&dropped_as_json(7)).unwrap();
        assert_eq!(event["fields"]["lines"], 7);
        assert!(dropped(7).contains("7 lines") && dropped(7).ends_with('\n'));
        assert_eq!(now().len(), "2026-01-01T00:00:00.000000Z".len());
    }

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_sanitized_line() {
        let hostile_text = "a\n2026 ERROR forged\r\u{1b}[2J\u{9b}31m\u{202e}b\u{2028}c";
        for json in [false, true] {
            let written = Shared::default();
            let to = written.clone();
            let log = fmt().with_ansi(false);
            let log: Box<dyn tracing::Subscriber + Send + Sync> = if json {
                Box::new(log.json().with_writer(move || Json(to.clone())).finish())
            } else {
                Box::new(log.fmt_fields(fields()).with_writer(move || to.clone()).finish())
            };
            tracing::subscriber::with_default(log, || {
                tracing::error!(cause = hostile_text, error = %hostile_text, "{hostile_text}");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
            assert!(!text.contains(['\u{202e}', '\u{2028}']), "{text:?}");
            assert!(text.contains("forged"), "{text:?}");
        }
    }
}
