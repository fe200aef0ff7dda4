//! Log lines of an attempt, for people. The log of a failed attempt is kept too.
//!
//! ```
//! use exosphere_sdk::prelude::*;
//!
//! # exosphere_sdk::testing::Host::new().within(|| {
//! let rows = 3;
//! log::info!("read {rows} rows");
//! log::warn!("row {} is empty", 2);
//! # Ok(())
//! # }).unwrap();
//! ```
//!
//! A node's standard output and standard error are kept too, as `info` and `warn`. The
//! host keeps a limited number of lines and bytes per attempt, and drops the rest.

use crate::imports::log as host;

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Useful only to find a mistake.
    Debug,
    /// A normal event.
    Info,
    /// An unexpected event that was handled.
    Warn,
    /// A failure.
    Error,
}

/// Writes a log line. The macros [`debug!`](debug), [`info!`](info), [`warn!`](warn)
/// and [`error!`](error) do the same with a format.
pub fn write(level: Level, message: &str) {
    host::write(level, message);
}

/// Defines the macro of one level. `$d` is a dollar sign, for the inner macro.
macro_rules! level {
    ($d:tt $level:ident, $name:ident, $hidden:ident, $doc:literal) => {
        #[doc(hidden)]
        #[macro_export]
        macro_rules! $hidden {
                    ($d($d arg:tt)+) => {
                        $crate::log::write($crate::log::Level::$level, &::std::format!($d($d arg)+))
                    };
                }

        #[doc = $doc]
        #[doc(inline)]
        pub use $hidden as $name;
    };
}

level!($ Debug, debug, __log_debug, "Writes a `debug` line with the text of `format!`.");
level!($ Info, info, __log_info, "Writes an `info` line with the text of `format!`.");
level!($ Warn, warn, __log_warn, "Writes a `warn` line with the text of `format!`.");
level!($ Error, error, __log_error, "Writes an `error` line with the text of `format!`.");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Host;

    #[test]
    fn log_lines_are_kept_in_order() {
        let mut host = Host::new();
        let n = 1;
        let _ = host.within(|| {
            crate::log::debug!("a {n}");
            crate::log::info!("b {}", 2);
            crate::log::warn!("c");
            crate::log::error!("d {x}", x = 4);
            Ok(())
        });
        let expected = [
            (Level::Debug, "a 1".to_owned()),
            (Level::Info, "b 2".to_owned()),
            (Level::Warn, "c".to_owned()),
            (Level::Error, "d 4".to_owned()),
        ];
        assert_eq!(host.log(), expected);
    }
}
