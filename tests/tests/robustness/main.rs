//! Robustness of a host against clients and its environment.
//!
//! Not here: invalid requests (`invalid_requests`), and full disks (`disk_full`).

#![allow(clippy::unwrap_used)]

mod connections;
mod large_reads;
mod environment;

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Result;
use exosphere_tests::Host;

fn address(host: &Host) -> &str {
    host.url().trim_start_matches("http://")
}

fn connect(host: &Host) -> Result<TcpStream> {
    let stream = TcpStream::connect(address(host))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Reads until the host closes the connection. Returns the text and the time that it took.
fn until_closed(stream: &mut TcpStream) -> Result<(String, Duration)> {
    let (started, mut bytes) = (Instant::now(), Vec::new());
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok((String::from_utf8_lossy(&bytes).into_owned(), started.elapsed())),
    }
}
