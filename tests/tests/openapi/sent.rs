//! A request as data, which a test may spoil before it is sent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

use anyhow::{Result, anyhow};
use exosphere_tests::host::client_builder;
use exosphere_tests::{Host, MAX_WAIT};
use parking_lot::Mutex;
use reqwest::blocking::{Client, Response};
use serde_json::Value;

/// The clients by their keys and addresses: one takes milliseconds to build.
static CLIENTS: Mutex<BTreeMap<(String, Ipv4Addr), Client>> = Mutex::new(BTreeMap::new());

/// Returns a client that sends a key from an address.
fn client_with(key: &str, from: Ipv4Addr) -> Result<Client> {
    let mut clients = CLIENTS.lock();
    let of = (key.to_owned(), from);
    if let Some(known) = clients.get(&of) {
        return Ok(known.clone());
    }
    let new = client_builder(key, MAX_WAIT)?.local_address(IpAddr::V4(from)).build()?;
    clients.insert(of, new.clone());
    Ok(new)
}

/// A request.
#[derive(Debug, Clone)]
pub struct Sent {
    pub method: String,
    /// The path from the root.
    pub path: String,
    pub query: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The key, empty for none; that of the host if there is no other.
    pub key: Option<String>,
    /// The address that it comes from.
    pub from: Ipv4Addr,
}

/// An answer that was read.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub media_type: String,
    pub text: String,
}

impl Answer {
    /// Returns the body as JSON.
    pub fn json(&self) -> Result<Value> {
        let json = exosphere_domain::json::read_stored(&self.text);
        json.map_err(|error| anyhow!("the answer is not JSON: {error}: {}", self.text))
    }
}

impl Sent {
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        let (method, path) = (method.to_owned(), path.into());
        let (query, headers, body) = (String::new(), Vec::new(), Vec::new());
        Sent { method, path, query, headers, body, key: None, from: Ipv4Addr::LOCALHOST }
    }

    /// Sets the address that it comes from, one of the loopback.
    pub fn from(self, from: Ipv4Addr) -> Self {
        Sent { from, ..self }
    }

    pub fn key(self, key: impl Into<String>) -> Self {
        Sent { key: Some(key.into()), ..self }
    }

    pub fn query(self, query: impl Into<String>) -> Self {
        Sent { query: query.into(), ..self }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Sent { body: body.into(), ..self }
    }

    /// Returns the path with its query.
    fn target(&self) -> String {
        if self.query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{}", self.path, self.query)
        }
    }

    /// Sends the request.
    pub fn to(&self, host: &Host) -> Result<Response> {
        let mut request = match &self.key {
            None => host.request(&self.method, &format!("/{}", self.target()))?,
            Some(key) => {
                let url = format!("{}{}", host.url(), self.target());
                client_with(key, self.from)?.request(self.method.parse()?, url)
            }
        };
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if !self.body.is_empty() {
            request = request.body(self.body.clone());
        }
        Ok(request.send()?)
    }

    /// Sends the request, and reads its answer.
    pub fn answer(&self, host: &Host) -> Result<Answer> {
        let response = self.to(host)?;
        let status = response.status().as_u16();
        let media_type = response.headers().get("content-type").cloned();
        let media_type = media_type.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
        let text = response.text()?;
        Ok(Answer { status, media_type: media_type.unwrap_or_default(), text })
    }

    /// Sends the head of the request with other headers of its body, then some bytes, and reads
    /// the answer.
    pub fn raw_answer(&self, host: &Host, headers: &str, bytes: &[u8]) -> Result<Answer> {
        let address = host.url().trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (method, target) = (&self.method, self.target());
        let key = host.authorization();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\
             {headers}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), bytes].concat())?;
        let mut text = String::new();
        // The host closes the connection, because the rest of the body may be unread.
        stream.read_to_string(&mut text)?;
        stream.shutdown(Shutdown::Both).ok();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let line = head.lines().find_map(|line| line.strip_prefix("content-type: "));
        Ok(Answer {
            status: status.unwrap_or_default(),
            media_type: line.unwrap_or_default().to_owned(),
            text: body.to_owned(),
        })
    }
}
