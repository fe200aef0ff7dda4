//! Why an upload is no plugin: one kind for each thing that its author can do
//! about it, in words for people and with a word for programs.
//!
//! Not here: what finds these things out; that is in `admit`, `inspect` and
//! `compiler`.

use exosphere_domain::failure::Failure;
use exosphere_domain::limits::Unit;
use serde::{Deserialize, Serialize};

use crate::text::{clean_lines, cut};

/// Why an upload is no plugin. The text is for whoever uploaded it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// There was nothing in it.
    #[error("the upload is empty; {FIX}")]
    Empty,
    /// It begins like something else.
    #[error("the upload is {found}, not a WebAssembly component; {FIX}")]
    NotAComponent {
        /// What it seems to be.
        found: String,
    },
    /// It is no valid component.
    #[error("the component is damaged or cut short: {why}; {FIX}")]
    Invalid {
        /// The validator's words.
        why: String,
    },
    /// It uses a part of WebAssembly that is off here.
    #[error("the component uses {proposal}, a WebAssembly proposal that is off here: {why}; {FIX}")]
    Proposal {
        /// The proposal.
        proposal: String,
        /// Where, in the validator's words.
        why: String,
    },
    /// It is made of too many or too large parts.
    #[error("the component has {has} {what}; at most {limit} are allowed (limit `{bound}`)")]
    TooMany {
        /// The name of the limit.
        bound: String,
        /// What there is too much of.
        what: String,
        /// How many there are, as far as was counted.
        has: u64,
        /// How many there may be.
        limit: u64,
    },
    /// To compile it takes more than is given to one compilation.
    #[error("{}", too_costly(*.limit, *.value))]
    TooCostly {
        /// What ran out.
        limit: CompileLimit,
        /// How much of it there was.
        value: u64,
    },
    /// The compiler broke on it.
    #[error(
        "the compiler fails on the component: {why}; change or leave out what is unusual in it"
    )]
    Uncompilable {
        /// What is known of it.
        why: String,
    },
    /// It begins with more than a sandbox of this host holds.
    #[error(
        "the component does not fit into a sandbox of this host: {why}; let it begin with less \
         memory and smaller tables"
    )]
    DoesNotFit {
        /// What is too large, in the engine's words.
        why: String,
    },
    /// It needs something that the host does not offer, or offers otherwise.
    #[error("the component asks for what this host does not offer: {why}; {FIX}")]
    Imports {
        /// Which import, and what is wrong with it.
        why: String,
    },
    /// It lacks what a plugin must offer, or offers it otherwise.
    #[error("the component is no plugin: {why}; {FIX}")]
    Exports {
        /// Which export, and what is wrong with it.
        why: String,
    },
    /// It could not say what its nodes are.
    #[error("the plugin could not describe its nodes: {0}")]
    Describe(Failure),
    /// It said two different things of its nodes.
    #[error(
        "the plugin described its nodes in two ways when it was asked twice; `describe` must \
         always say the same"
    )]
    DescribeDiffers,
    /// The process that compiled it was killed from outside, again and again.
    #[error(
        "the process that compiles was killed {times} times by something other than its limits: the \
         machine may be short of memory; try again later, and give the host more memory if it lasts"
    )]
    Killed {
        /// How often it was tried.
        times: u32,
    },
    /// A mistake or a need of the host.
    #[error("the component could not be compiled because of a mistake of the host: {why}")]
    Internal {
        /// What is known of it.
        why: String,
    },
}

impl Refused {
    /// A word for each kind, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Refused::Empty => "empty",
            Refused::NotAComponent { .. } => "not-a-component",
            Refused::Invalid { .. } => "invalid-component",
            Refused::Proposal { .. } => "disabled-proposal",
            Refused::TooMany { .. } => "too-many-parts",
            Refused::TooCostly { limit, .. } => limit.reason(),
            Refused::Uncompilable { .. } => "compiler-failed",
            Refused::DoesNotFit { .. } => "does-not-fit",
            Refused::Imports { .. } => "unknown-import",
            Refused::Exports { .. } => "not-a-plugin",
            Refused::Describe(_) => "describe-failed",
            Refused::DescribeDiffers => "describe-differs",
            Refused::Killed { .. } => "compiler-killed",
            Refused::Internal { .. } => "internal",
        }
    }
}

/// What one compilation may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompileLimit {
    /// Seconds of CPU time.
    Cpu,
    /// Bytes of address space.
    Memory,
    /// Seconds by the clock on the wall.
    Wall,
    /// Bytes of compiled code.
    Code,
}

impl CompileLimit {
    /// Its name, as everybody writes it.
    pub fn name(self) -> &'static str {
        match self {
            CompileLimit::Cpu => "compile_cpu_s",
            CompileLimit::Memory => "compile_memory_bytes",
            CompileLimit::Wall => "compile_wall_s",
            CompileLimit::Code => "code_bytes",
        }
    }

    fn reason(self) -> &'static str {
        match self {
            CompileLimit::Cpu => "compile-cpu-limit",
            CompileLimit::Memory => "compile-memory-limit",
            CompileLimit::Wall => "compile-time-limit",
            CompileLimit::Code => "code-size-limit",
        }
    }
}

fn too_costly(limit: CompileLimit, value: u64) -> String {
    let name = limit.name();
    let seconds = Unit::Millis.show(value.saturating_mul(1_000));
    match limit {
        CompileLimit::Cpu => format!(
            "to compile the component takes more than {seconds} of CPU time (limit `{name}`); \
             smaller functions with fewer loops compile faster, and the operator of the host can \
             raise the limit: `exosphere serve --compile-cpu-seconds ..`"
        ),
        CompileLimit::Memory => format!(
            "to compile the component takes more than {} of memory (limit `{name}`); smaller \
             functions need less, and the operator of the host can raise the limit: \
             `exosphere serve --compile-memory-bytes ..`",
            Unit::Bytes.show(value)
        ),
        // It follows the CPU time: there is no flag of its own.
        CompileLimit::Wall => format!(
            "to compile the component took longer than {seconds} (limit `{name}`), perhaps since \
             the host is busy: try again, or the operator of the host can raise the limit with \
             that of CPU time: `exosphere serve --compile-cpu-seconds ..`"
        ),
        CompileLimit::Code => format!(
            "the component compiles to more than {} of code (limit `{name}`); build it with \
             `opt-level = \"s\"`, or make several plugins of it",
            Unit::Bytes.show(value)
        ),
    }
}

/// What to do about an upload that does not fit.
const FIX: &str = "build it for wasm32-wasip2 with exosphere-sdk 0.1";

/// Bytes of a reason. It may hold names that the upload chose.
const WHY_BYTES: usize = 2048;

/// The words of an error about an upload, made safe to show.
pub(crate) fn words(error: &dyn std::fmt::Display) -> String {
    clean_lines(cut(&format!("{error:#}"), WHY_BYTES))
}

/// The refusal of what the parser or the validator does not take.
pub(crate) fn invalid(error: &dyn std::fmt::Display) -> Refused {
    Refused::Invalid { why: words(error) }
}
