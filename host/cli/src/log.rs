//! The host's own log, on standard error. Much of what it repeats are words of
//! others: of databases, of the engine about a guest's code, of callers. Each
//! event is one line, and none of it is obeyed by a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{FormatFields, debug_fn};

use crate::clean;

/// Begins to log: as lines for people, or as JSON for programs.
pub fn begin(json: bool) {
    let log = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(is_coloured());
    match json {
        true => log.json().with_writer(|| Json(io::stderr())).init(),
        false => log.fmt_fields(fields()).with_writer(io::stderr).init(),
    }
}

/// Only a terminal makes colours of what else are characters in a file; and not if
/// its user asked for none (<https://no-color.org>).
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

fn filter() -> EnvFilter {
    let filter = EnvFilter::try_from_env("EXOSPHERE_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // It would repeat a parameter that it does not know, which may be a password
    // under a mistyped name.
    let silent = "sqlx_postgres::options=off".parse();
    silent.into_iter().fold(filter, EnvFilter::add_directive)
}

/// Writes the message and the fields of an event: `words name=value ..`. (By
/// itself the formatter spells out escape sequences, and no line ends.)
fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let one = debug_fn(|writer, field, value| {
        let mut words = String::new();
        write!(words, "{value:?}")?;
        let words = clean::line(&words);
        match field.name() {
            "message" => write!(writer, "{words}"),
            name => write!(writer, "{name}={words}"),
        }
    });
    one.delimited(" ")
}

/// Takes events as JSON, each in one piece, and spells out what JSON itself lets
/// stand: the second set of control characters, marks of direction.
struct Json<W>(W);

impl<W: Write> Write for Json<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(clean::json(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

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
    fn an_event_is_one_line_that_no_terminal_obeys() {
        let nasty = "a\n2026 ERROR forged\r\u{1b}[2J\u{9b}31m\u{202e}b\u{2028}c";
        for json in [false, true] {
            let written = Shared::default();
            let to = written.clone();
            let log = tracing_subscriber::fmt().with_ansi(false);
            let log: Box<dyn tracing::Subscriber + Send + Sync> = match json {
                true => Box::new(log.json().with_writer(move || Json(to.clone())).finish()),
                false => {
                    Box::new(log.fmt_fields(fields()).with_writer(move || to.clone()).finish())
                }
            };
            tracing::subscriber::with_default(log, || {
                tracing::error!(why = nasty, error = %nasty, "{nasty}");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 1, "{text:?}");
            assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
            assert!(!text.contains(['\u{202e}', '\u{2028}']), "{text:?}");
            assert!(text.contains("forged"), "{text:?}");
        }
    }
}
