//! Arguments for admission: the size limit of plugins, and the limits of their
//! compilation.

use clap::{Args, value_parser};
use exosphere_orchestrator::{AdmissionLimits, DEFAULT_CODE_CACHE_BYTES};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

const DEFAULT_UPLOAD: u64 = 32 * MIB;
const DEFAULT_CPU_S: u64 = 60;
const DEFAULT_MEMORY: u64 = 4 * GIB;

/// How large plugins may be, and what it may take to compile one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Admission of plugins")]
pub struct Admission {
    /// The most bytes of an uploaded plugin.
    #[arg(long, env = "EXOSPHERE_UPLOAD_BYTES", default_value_t = DEFAULT_UPLOAD,
          value_name = "BYTES", value_parser = value_parser!(u64).range(1..=256 * MIB))]
    upload_bytes: u64,
    /// The most CPU time of the process that compiles a plugin. By the clock it
    /// may take twice as long, and two minutes at least.
    #[arg(long, env = "EXOSPHERE_COMPILE_CPU_SECONDS", default_value_t = DEFAULT_CPU_S,
          value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=3600))]
    compile_cpu_seconds: u64,
    /// The most memory (address space) of the process that compiles a plugin.
    #[arg(long, env = "EXOSPHERE_COMPILE_MEMORY_BYTES", default_value_t = DEFAULT_MEMORY,
          value_name = "BYTES", value_parser = value_parser!(u64).range(512 * MIB..=64 * GIB))]
    compile_memory_bytes: u64,
    /// The most bytes of compiled code in the data folder. What was not used for
    /// the longest time goes first, and is compiled again when it is needed.
    #[arg(long, env = "EXOSPHERE_CODE_CACHE_BYTES", default_value_t = DEFAULT_CODE_CACHE_BYTES,
          value_name = "BYTES")]
    pub code_cache_bytes: u64,
}

impl Admission {
    /// Returns the admission limits.
    pub fn limits(&self) -> AdmissionLimits {
        let defaults = AdmissionLimits::default();
        AdmissionLimits {
            upload_bytes: self.upload_bytes,
            compile_cpu_s: self.compile_cpu_seconds,
            compile_memory_bytes: self.compile_memory_bytes,
            // The compiler has a low priority and takes longer on a busy host.
            compile_wall_s: defaults.compile_wall_s.max(self.compile_cpu_seconds.saturating_mul(2)),
            ..defaults
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        admission: Admission,
    }

    #[test]
    fn the_defaults_are_those_of_the_host() {
        let line = Line::try_parse_from(["line"]).unwrap();
        assert_eq!(line.admission.limits(), AdmissionLimits::default());
    }
}
