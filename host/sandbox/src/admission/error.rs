//! Reasons to refuse an upload: one kind for each remedy that its author has, with a message
//! for people and a word for programs.
//!
//! Not here: the checks that find these reasons; they are in `admission`, `inspect` and
//! `compiler`.

use exosphere_domain::failure::Failure;
use exosphere_domain::limits::Unit;
use exosphere_domain::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::sanitize::{clean_lines, cut};

/// The reason why an upload is not a valid plugin. The text is for its author.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum AdmissionError {
    /// The upload is empty.
    #[error("the upload is empty; {FIX}")]
    Empty,
    /// The first bytes of the upload are those of another kind of file.
    #[error("the upload is {found}, not a WebAssembly component; {FIX}")]
    NotAComponent {
        /// The kind of file that it seems to be.
        found: String,
    },
    /// The upload is not a valid component.
    #[error("the component is damaged or cut short: {cause}; {FIX}")]
    Invalid {
        /// The validator's message.
        cause: String,
    },
    /// The component uses a WebAssembly proposal that is switched off here.
    #[error(
        "the component uses {proposal}, a WebAssembly proposal that is off here: {cause}; {FIX}"
    )]
    Proposal {
        /// The name of the proposal.
        proposal: String,
        /// The place, in the validator's words.
        cause: String,
    },
    /// The component has too many or too large parts.
    #[error("the component has {has} {part}; at most {limit} are allowed (limit `{bound}`)")]
    TooMany {
        /// The name of the limit.
        bound: String,
        /// The kind of part that exceeds it.
        part: String,
        /// The number of parts, as far as it was counted.
        has: u64,
        /// The largest number allowed.
        limit: u64,
    },
    /// The compilation exceeds a resource limit.
    #[error("{}", too_costly(*.limit, *.value))]
    TooCostly {
        /// The exhausted resource.
        limit: CompileLimit,
        /// The value of its limit.
        value: u64,
    },
    /// The compiler failed on the component.
    #[error(
        "the compiler fails on the component: {cause}; change or leave out what is unusual in it"
    )]
    Uncompilable {
        /// The known details.
        cause: String,
    },
    /// The component's initial memory or tables exceed a sandbox of this host.
    #[error(
        "the component does not fit into a sandbox of this host: {cause}; let it begin with less \
         memory and smaller tables"
    )]
    DoesNotFit {
        /// The part that is too large, in the engine's words.
        cause: String,
    },
    /// The component has an import that the host does not offer, or offers with another
    /// type.
    #[error("the component asks for what this host does not offer: {cause}; {FIX}")]
    Imports {
        /// The import, and its problem.
        cause: String,
    },
    /// The component lacks an export that a plugin must have, or has it with another
    /// type.
    #[error("the component is not a plugin: {cause}; {FIX}")]
    Exports {
        /// The export, and its problem.
        cause: String,
    },
    /// The plugin failed to describe its nodes.
    #[error("the plugin could not describe its nodes: {0}")]
    Describe(Failure),
    /// The plugin described its nodes in two different ways.
    #[error(
        "the plugin described its nodes in two ways when it was asked twice; `describe` must \
         always say the same"
    )]
    DescribeDiffers,
    /// The compiling process was killed from outside, again and again.
    #[error(
        "the process that compiles was killed {times} times by something other than its limits: the \
         machine may be short of memory; try again later, and give the host more memory if it lasts"
    )]
    Killed {
        /// The number of tries.
        times: u32,
    },
    /// An internal error, or a lack of resources on the host.
    #[error("the component could not be compiled because of a mistake of the host: {cause}")]
    Internal {
        /// The known details.
        cause: String,
    },
}

impl AdmissionError {
    /// Returns the reason for programs; `None` for an internal error.
    pub fn reason(&self) -> Option<Reason> {
        Some(match self {
            AdmissionError::Empty => Reason::Empty,
            AdmissionError::NotAComponent { .. } => Reason::NotAComponent,
            AdmissionError::Invalid { .. } => Reason::InvalidComponent,
            AdmissionError::Proposal { .. } => Reason::DisabledProposal,
            AdmissionError::TooMany { .. } => Reason::TooManyParts,
            AdmissionError::TooCostly { limit, .. } => limit.reason(),
            AdmissionError::Uncompilable { .. } => Reason::CompilerFailed,
            AdmissionError::DoesNotFit { .. } => Reason::DoesNotFit,
            AdmissionError::Imports { .. } => Reason::UnknownImport,
            AdmissionError::Exports { .. } => Reason::NotAPlugin,
            AdmissionError::Describe(_) => Reason::DescribeFailed,
            AdmissionError::DescribeDiffers => Reason::DescribeDiffers,
            AdmissionError::Killed { .. } => Reason::CompilerKilled,
            AdmissionError::Internal { .. } => return None,
        })
    }
}

/// A resource limit of one compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompileLimit {
    /// CPU time, in seconds.
    Cpu,
    /// Bytes of address space.
    Memory,
    /// Wall-clock time, in seconds.
    Wall,
    /// Bytes of compiled code.
    Code,
}

impl CompileLimit {
    /// Returns the name of the limit, the same in every interface.
    pub fn name(self) -> &'static str {
        match self {
            CompileLimit::Cpu => "compile_cpu_s",
            CompileLimit::Memory => "compile_memory_bytes",
            CompileLimit::Wall => "compile_wall_s",
            CompileLimit::Code => "code_bytes",
        }
    }

    fn reason(self) -> Reason {
        match self {
            CompileLimit::Cpu => Reason::CompileCpuLimit,
            CompileLimit::Memory => Reason::CompileMemoryLimit,
            CompileLimit::Wall => Reason::CompileTimeLimit,
            CompileLimit::Code => Reason::CodeSizeLimit,
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
        // The wall-clock limit follows the CPU time: it has no flag.
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

/// The remedy for an upload that does not fit the contract.
const FIX: &str = "build it for wasm32-wasip2 with exosphere-sdk 0.1";

/// Maximum bytes of a reason in a message. It may repeat names from the upload.
const MAX_WHY_BYTES: usize = 2048;

/// Cleans the message of an error about an upload, so that it is safe to show.
pub(crate) fn message_of(error: &dyn std::fmt::Display) -> String {
    clean_lines(cut(&format!("{error:#}"), MAX_WHY_BYTES))
}

/// Returns the refusal of a component that the parser or the validator rejects.
pub(crate) fn invalid(error: &dyn std::fmt::Display) -> AdmissionError {
    AdmissionError::Invalid { cause: message_of(error) }
}
