//! The bounds of a component's parts, as one table.
//!
//! A component that componentize-py made has up to 38 core modules and some tens of
//! thousands of functions. The largest of them is Python's interpreter loop. Every
//! bound leaves room for several times that. The compiler's time grows with the square
//! of some of these numbers: one function at its bound takes seconds, not minutes. A
//! component within the bounds that still takes too long is ended by the limits of the
//! process.

use crate::admission::error::AdmissionError;
use crate::engine::{MAX_MEMORIES, MAX_TABLES};

macro_rules! parts {
    ($($variant:ident $name:literal $bound:expr, $noun:literal;)*) => {
        /// A kind of part of a component.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Part { $($variant,)* }

        impl Part {
            const COUNT: usize = [$(Part::$variant,)*].len();

            /// Returns the name of the bound, for programs.
            fn name(self) -> &'static str {
                match self { $(Part::$variant => $name,)* }
            }

            /// Returns the noun that follows a number of the part in a message.
            fn noun(self) -> &'static str {
                match self { $(Part::$variant => $noun,)* }
            }

            /// Returns the bound of the part.
            pub(super) fn bound(self) -> u64 {
                match self { $(Part::$variant => $bound,)* }
            }
        }
    };
}

const MIB: u64 = 1024 * 1024;

parts! {
    // The whole component, nested components and modules included.
    Components "components" 200, "components";
    Depth "depth" 16, "levels of components and modules in each other";
    CoreModules "core_modules" 200, "core modules";
    Instances "instances" 500, "component instances";
    CoreInstances "core_instances" 500, "core instances";
    Memories "memories" u64::from(MAX_MEMORIES), "memories";
    Tables "tables" u64::from(MAX_TABLES), "tables";
    Functions "functions" 100_000, "functions";
    Globals "globals" 100_000, "globals";
    Types "types" 50_000, "types";
    Imports "imports" 50_000, "imports";
    Exports "exports" 100_000, "exports";
    Aliases "aliases" 50_000, "aliases";
    Canonicals "canonicals" 10_000, "functions between components";
    Elements "elements" 1_000_000, "elements of tables";
    DataSegments "data_segments" 50_000, "data segments";
    DataBytes "data_bytes" 64 * MIB, "bytes of data";
    CustomSections "custom_sections" 10_000, "custom sections";
    // One function. The trailing number is the largest of any function in Python.
    FunctionBytes "function_bytes" 2 * MIB, "bytes in one function"; // 430,000
    Operators "operators" 1_000_000, "instructions in one function"; // 170,000
    Locals "locals" 10_000, "locals in one function"; // 270
    Loops "loops" 2_000, "loops in one function"; // 80
    Nesting "nesting" 2_000, "blocks inside each other in one function"; // 780
    Branches "branches" 25_000, "branches in one function"; // 7,800
    Targets "branch_targets" 60_000, "targets of branch tables in one function"; // 16,000
    // Register allocation works on these pairs.
    Liveness "liveness" 4_000_000, "pairs of a local and a branch in one function"; // 143,000
}

impl Part {
    /// Refuses a number that exceeds the bound.
    pub(super) fn check(self, has: u64) -> Result<(), AdmissionError> {
        if has > self.bound() {
            Err(too_many(self.name(), self.noun(), has, self.bound()))
        } else {
            Ok(())
        }
    }
}

/// Returns the refusal of a part that exceeds its bound.
pub(crate) fn too_many(bound: &str, part: &str, has: u64, limit: u64) -> AdmissionError {
    AdmissionError::TooMany { bound: bound.to_owned(), part: part.to_owned(), has, limit }
}

/// The counts of all parts so far.
#[derive(Debug)]
pub(super) struct PartCounts([u64; Part::COUNT]);

impl Default for PartCounts {
    fn default() -> Self {
        PartCounts([0; Part::COUNT])
    }
}

impl PartCounts {
    /// Adds to the count of a part, and refuses a count that exceeds its bound.
    pub(super) fn add(&mut self, part: Part, more: u64) -> Result<(), AdmissionError> {
        let Some(count) = self.0.get_mut(part as usize) else { return Ok(()) };
        *count = count.saturating_add(more);
        part.check(*count)
    }

    /// Returns the count of a part.
    pub(super) fn get(&self, part: Part) -> u64 {
        self.0.get(part as usize).copied().unwrap_or_default()
    }
}
