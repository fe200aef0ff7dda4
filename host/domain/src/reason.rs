//! The reasons of refusals and of unanswered requests, as programs read them: the member
//! `reason` of a problem document.
//!
//! Not here: the messages for people (the errors that carry a reason), and the kinds of
//! problems with their statuses (the API).

use std::fmt;

use serde::Serialize;

/// Declares the reasons, each with its name.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident $name:literal;)*) => {
        /// The reason of a problem, where its kind has several.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        pub enum Reason { $($(#[$doc])* #[serde(rename = $name)] $reason,)* }

        impl Reason {
            /// Every reason, in the order of the list.
            pub const ALL: &[Reason] = &[$(Reason::$reason,)*];

            /// Returns the reason's name in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$reason => $name,)* }
            }
        }
    };
}

reasons! {
    /// The upload is empty.
    Empty "empty";
    /// The upload is not a WebAssembly component.
    NotAComponent "not-a-component";
    /// The component is damaged.
    InvalidComponent "invalid-component";
    /// The component uses a WebAssembly proposal that is off.
    DisabledProposal "disabled-proposal";
    /// The component has too many or too large parts.
    TooManyParts "too-many-parts";
    /// The compilation exceeds its limit of CPU time.
    CompileCpuLimit "compile-cpu-limit";
    /// The compilation exceeds its limit of memory.
    CompileMemoryLimit "compile-memory-limit";
    /// The compilation exceeds its limit of wall-clock time.
    CompileTimeLimit "compile-time-limit";
    /// The compiled code is too large.
    CodeSizeLimit "code-size-limit";
    /// The compiler fails on the component.
    CompilerFailed "compiler-failed";
    /// The component does not fit into a sandbox.
    DoesNotFit "does-not-fit";
    /// The component imports something that the host does not offer.
    UnknownImport "unknown-import";
    /// The component does not export the interface of a plugin.
    NotAPlugin "not-a-plugin";
    /// The plugin failed to describe its nodes.
    DescribeFailed "describe-failed";
    /// The plugin described its nodes in two ways.
    DescribeDiffers "describe-differs";
    /// The descriptions of the plugin's nodes are not valid.
    BadDescription "bad-description";
    /// The compiling process was killed from outside.
    CompilerKilled "compiler-killed";
    /// Nothing is in the namespace.
    NoNamespace "no-namespace";
    /// The request has had no effect and will have none.
    NotDone "not-done";
    /// The request may have an effect.
    Unknown "unknown";
    /// The request was carried out, but its result cannot be shown.
    Done "done";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
