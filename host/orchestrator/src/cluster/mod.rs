//! The company of other hosts on a shared database: a heartbeat, notifications between
//! hosts, the states of lost ones, and the health of the database. A host on SQLite is
//! alone, and uses of this only the recovery from its predecessor.
//!
//! Not here: SQL, and the sweeps that a lost host has begun (`execution::sweeps`).

pub(crate) mod heartbeat;
pub(crate) mod notifier;
pub(crate) mod recovery;
pub(crate) mod probe;
