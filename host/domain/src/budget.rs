//! Budgets, in steps, for the host's own work on behalf of callers and guests.
//! A step takes roughly [`STEP_NANOS`] of one processor.
//!
//! Not here: the meter and the thread of that work; those are in the
//! orchestrator.

use std::cell::Cell;

/// Nanoseconds of a step on an ordinary processor. Measured: 4.2 million visits
/// of a schema in 40 ms.
pub const STEP_NANOS: u64 = 10;

/// A budget from which host work takes steps before each piece.
pub trait Budget {
    /// Takes `steps` out of the budget, before the work is done.
    ///
    /// # Errors
    /// If the budget is exhausted, or the work was cancelled.
    fn take(&self, steps: u64) -> Result<(), Exhausted>;
}

/// An exhausted budget: the work must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted;

/// A budget of a fixed number of steps.
#[derive(Debug)]
pub struct StepBudget {
    left: Cell<u64>,
    is_exhausted: Cell<bool>,
}

impl StepBudget {
    /// Creates a budget of `steps`.
    pub fn new(steps: u64) -> Self {
        StepBudget { left: Cell::new(steps), is_exhausted: Cell::new(false) }
    }

    /// Returns `true` if more steps were requested than the budget had.
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted.get()
    }
}

impl Budget for StepBudget {
    fn take(&self, steps: u64) -> Result<(), Exhausted> {
        match self.left.get().checked_sub(steps) {
            Some(left) if !self.is_exhausted.get() => {
                self.left.set(left);
                Ok(())
            }
            _ => {
                self.is_exhausted.set(true);
                Err(Exhausted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhausted_budget_stays_exhausted() {
        let budget = StepBudget::new(10);
        assert_eq!(budget.take(10), Ok(()));
        assert!(!budget.is_exhausted());
        assert_eq!(budget.take(1), Err(Exhausted));
        assert_eq!(budget.take(0), Err(Exhausted));
    }
}
