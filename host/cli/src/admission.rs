//! Arguments for admission: the size limit of plugins, and the limits of their
//! compilation.

use clap::{Args, value_parser};
use exosphere_orchestrator::{AdmissionLimits, DEFAULT_CODE_CACHE_BYTES};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

const DEFAULT_UPLOAD_BYTES: u64 = 32 * MIB;
const DEFAULT_CPU_S: u64 = 60;
const DEFAULT_MEMORY_BYTES: u64 = 4 * GIB;

/// The size limit of plugins, and the limits of their compilation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Admission of plugins")]
pub struct Admission {
    /// The maximum size of an uploaded plugin, in bytes.
    #[arg(long, env = "EXOSPHERE_UPLOAD_BYTES", default_value_t = DEFAULT_UPLOAD_BYTES,
          value_name = "BYTES", value_parser = value_parser!(u64).range(1..=256 * MIB))]
    upload_bytes: u64,
    /// The maximum CPU time of the process that compiles a plugin, in seconds. Its
    /// wall-clock limit is twice as long, and at least two minutes.
    #[arg(long, env = "EXOSPHERE_COMPILE_CPU_SECONDS", default_value_t = DEFAULT_CPU_S,
          value_name = "SECONDS", value_parser = value_parser!(u64).range(1..=3600))]
    compile_cpu_seconds: u64,
    /// The maximum memory (address space) of the process that compiles a plugin, in
    /// bytes.
    #[arg(long, env = "EXOSPHERE_COMPILE_MEMORY_BYTES", default_value_t = DEFAULT_MEMORY_BYTES,
          value_name = "BYTES", value_parser = value_parser!(u64).range(512 * MIB..=64 * GIB))]
    compile_memory_bytes: u64,
    /// The maximum size of the compiled code in the data folder, in bytes. The host
    /// evicts the least recently used code first, and compiles it again when needed.
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
    struct TestArgs {
        #[command(flatten)]
        admission: Admission,
    }

    #[test]
    fn defaults_match_those_of_the_host() {
        let line = TestArgs::try_parse_from(["line"]).unwrap();
        assert_eq!(line.admission.limits(), AdmissionLimits::default());
    }
}
