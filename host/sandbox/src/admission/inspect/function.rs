//! Counts the parts of one function. The compiler's time and memory grow faster than
//! these counts.

use wasmparser::{FunctionBody, Operator};

use super::bounds::Part;
use crate::admission::error::{AdmissionError, invalid};

/// The instructions for which the compiler emits branches, besides blocks: if a call into the
/// engine may fail, a branch follows it.
macro_rules! branching {
    () => {
        Operator::BrIf { .. }
            | Operator::CallIndirect { .. }
            | Operator::MemoryGrow { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableGet { .. }
            | Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    };
}

/// Refuses a function with a count above its bound.
pub(super) fn check_function(body: &FunctionBody<'_>) -> Result<(), AdmissionError> {
    Part::FunctionBytes.check(body.range().len() as u64)?;
    let mut locals = 0_u64;
    for group in body.get_locals_reader().map_err(|error| invalid(&error))? {
        let (count, _) = group.map_err(|error| invalid(&error))?;
        locals = locals.saturating_add(u64::from(count));
    }
    Part::Locals.check(locals)?;
    let mut counts = Counts::default();
    let mut operators = body.get_operators_reader().map_err(|error| invalid(&error))?;
    while !operators.eof() {
        counts.count(&operators.read().map_err(|error| invalid(&error))?);
    }
    counts.check(locals)
}

#[derive(Debug, Default)]
struct Counts {
    operators: u64,
    loops: u64,
    branches: u64,
    depth: u64,
    deepest: u64,
    targets: u64,
}

impl Counts {
    fn count(&mut self, operator: &Operator<'_>) {
        self.operators += 1;
        match operator {
            Operator::Block { .. } | Operator::If { .. } => self.open(),
            Operator::Loop { .. } => {
                self.loops += 1;
                self.open();
            }
            Operator::End => self.depth = self.depth.saturating_sub(1),
            Operator::BrTable { targets } => {
                self.branches += 1;
                self.targets += u64::from(targets.len());
            }
            branching!() => self.branches += 1,
            _ => {}
        }
    }

    fn open(&mut self) {
        self.branches += 1;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
    }

    fn check(&self, locals: u64) -> Result<(), AdmissionError> {
        Part::Operators.check(self.operators)?;
        Part::Loops.check(self.loops)?;
        Part::Nesting.check(self.deepest)?;
        Part::Branches.check(self.branches)?;
        Part::Targets.check(self.targets)?;
        Part::Liveness.check(locals.saturating_mul(self.branches))
    }
}
