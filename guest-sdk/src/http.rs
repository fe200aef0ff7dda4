//! Requests over HTTP, as far as an operator granted them to the plugin.
//!
//! ```
//! use exosphere_sdk::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct User {
//!     name: String,
//! }
//!
//! fn name_of(id: u32) -> Result<String> {
//!     let user: User = http::get("https://api.example.com/v1/users")
//!         .query("id", id)
//!         .timeout(Duration::from_secs(5))
//!         .send()?
//!         .json()?;
//!     Ok(user.name)
//! }
//! # use exosphere_sdk::testing::{Answer, Host};
//! # let answer = Answer::json(json!({"name": "Ann"}));
//! # let mut host = Host::new().answer("GET https://api.example.com/v1/users", answer);
//! # assert_eq!(host.within(|| name_of(7)), Ok("Ann".to_owned()));
//! # assert_eq!(host.requests()[0].url, "https://api.example.com/v1/users?id=7");
//! ```
//!
//! [`send`](Request::send) returns the response with its whole body. A status other than
//! 200 to 299 is an error, so that a node does not take a refusal for a success;
//! [`any_status`](Request::any_status) turns this off. The host follows no redirect.
//!
//! # Errors
//!
//! An [`Error`] names the request and the cause. `?` converts it to the error of a node,
//! which is permanent if no other attempt can succeed: see [`ErrorKind`] for which.
//!
//! A breach of a limit of the host (requests of an attempt, time and bytes of a request)
//! is not an error here. It ends the attempt, and the failure names the limit. A
//! [`timeout`](Request::timeout) or [`max_bytes`](Request::max_bytes) below the limit
//! gives the node an error instead.
//!
//! # Grants
//!
//! The host makes only the requests that an operator granted to the plugin: `exosphere
//! grant add PLUGIN --http "GET https://api.example.com/v1/"`. If an attempt fails after
//! another request, its failure has the exact command, and so has its log.
//!
//! # Repeated requests
//!
//! An attempt may be repeated after its request took effect.
//! [`idempotent`](Request::idempotent) sends a key by which the server recognizes the
//! repetition:
//!
//! ```
//! use exosphere_sdk::prelude::*;
//!
//! fn charge(cents: u32) -> Result<()> {
//!     let charge = json!({"cents": cents});
//!     http::post("https://pay.example.com/charges").json(&charge).idempotent().send()?;
//!     Ok(())
//! }
//! # use exosphere_sdk::testing::{Answer, Host};
//! # let mut host = Host::new().run_id("r").answer("POST https://pay.example.com/charges", Answer::status(204));
//! # assert_eq!(host.within(|| charge(5)), Ok(()));
//! # assert_eq!(host.requests()[0].header("idempotency-key"), Some("r/1/0/1"));
//! ```
//!
//! # Not here
//!
//! Bodies in pieces, and trailers. For those, use the crate `wasip2` (`wasip2::http`).

mod error;
mod message;
mod request;
mod response;
mod url;

pub use error::{Error, ErrorKind};
pub use request::Request;
pub use response::Response;

pub(crate) use error::Cause;
pub(crate) use message::{Incoming, Outgoing};

/// Begins a GET request.
pub fn get(url: impl Into<String>) -> Request {
    request("GET", url)
}

/// Begins a POST request.
pub fn post(url: impl Into<String>) -> Request {
    request("POST", url)
}

/// Begins a PUT request.
pub fn put(url: impl Into<String>) -> Request {
    request("PUT", url)
}

/// Begins a PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    request("PATCH", url)
}

/// Begins a DELETE request.
pub fn delete(url: impl Into<String>) -> Request {
    request("DELETE", url)
}

/// Begins a request with any method. Methods are written in capital letters.
pub fn request(method: impl Into<String>, url: impl Into<String>) -> Request {
    Request::new(method.into(), url.into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_guide_shows_the_tested_example() {
        let guide = include_str!("../../docs/guides/write-a-node.md");
        assert!(guide.contains(include_str!("../examples/charge.rs")), "examples/charge.rs");
    }
}
