//! The API against its OpenAPI document: every operation, each answer that it documents, the keys
//! that may send it, and the manners that all of them share. Each test reads the document that the
//! host serves, so a new operation without a case fails.
//!
//! Not here: what the operations do, which the other tests show.

mod document;
mod happy;
mod manners;
mod problems;
mod roles;
mod schemathesis;
mod sent;
