//! Bounds the memory and the tables of one guest, **summed** over all of them:
//! wasmtime's own limits look at each memory alone, and a guest may have many.
//!
//! Not here: the limits of CPU time (`cpu_meter`), logs (`log`) and the store (`store`).

use exosphere_domain::limits::{Limit, Limits};
use wasmtime::ResourceLimiter;

use crate::engine::{MAX_MEMORIES, MAX_TABLES};

/// A resource that a guest asked for and was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Memory,
    Table,
}

/// The sum of one resource, with its limit.
#[derive(Debug, Default)]
struct Sum {
    used: u64,
    limit: u64,
    /// The last growth that was granted, to be undone if the engine then fails to grow.
    last: u64,
}

impl Sum {
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let growth = (desired as u64).saturating_sub(current as u64);
        let fits = self.used.saturating_add(growth) <= self.limit;
        if fits {
            self.used += growth;
            self.last = growth;
        }
        fits
    }

    fn undo(&mut self) {
        self.used -= std::mem::take(&mut self.last);
    }
}

/// The memory and table counter of one guest. Memories and tables never shrink, so the
/// use at the end is also the peak.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    memory: Sum,
    table: Sum,
    instances: usize,
    denied: Option<Denied>,
}

impl MemoryLimiter {
    pub(crate) fn new(limits: &Limits) -> MemoryLimiter {
        let sum = |limit| Sum { limit: limits.get(limit), ..Sum::default() };
        MemoryLimiter {
            memory: sum(Limit::MemoryBytes),
            table: sum(Limit::TableElements),
            instances: limits.size(Limit::Instances),
            denied: None,
        }
    }

    /// Returns the resource of the last growth that was denied, if there was one.
    pub(crate) fn denied(&self) -> Option<Denied> {
        self.denied
    }

    /// Returns the peak of the bytes of all memories together.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory.used
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = self.memory.grow(current, desired);
        if !fits {
            self.denied = Some(Denied::Memory);
        } else if maximum.is_some_and(|maximum| desired > maximum) {
            // The guest's own maximum stopped the growth; no limit of the host is
            // reached.
            self.memory.undo();
            return Ok(false);
        }
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a guest's memory could not grow");
        self.memory.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let fits = self.table.grow(current, desired);
        if !fits {
            self.denied = Some(Denied::Table);
        } else if maximum.is_some_and(|maximum| desired > maximum) {
            self.table.undo();
            return Ok(false);
        }
        Ok(fits)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "a guest's table could not grow");
        self.table.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memories_are_summed_without_failed_growth() {
        let mut limiter = MemoryLimiter::new(&Limits::default().with(Limit::MemoryBytes, 100));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap(), "the second memory counts too");
        assert_eq!(limiter.denied(), Some(Denied::Memory));
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        assert_eq!(limiter.peak_memory(), 60);
    }

    #[test]
    fn a_guests_own_maximum_is_not_denied() {
        let mut limiter = MemoryLimiter::new(&Limits::default());
        assert!(!limiter.memory_growing(0, 200, Some(100)).unwrap());
        assert!(!limiter.table_growing(0, 200, Some(100)).unwrap());
        assert_eq!((limiter.denied(), limiter.peak_memory()), (None, 0));
    }
}
