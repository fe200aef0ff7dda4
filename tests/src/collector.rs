//! An OpenTelemetry collector for tests: a server that takes OTLP/HTTP as the real one does with its
//! defaults, decodes what it gets, and can fail in every way.
//!
//! Not here: the host's own code. The messages are read as their specification has them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{checkout, until};

/// The largest body that a collector takes by default, in bytes.
const MAX_BODY_BYTES: u64 = 20 * 1024 * 1024;

/// A span, as a collector gets it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Span {
    /// The id of its trace, in hexadecimal digits.
    pub trace_id: String,
    /// The id of the span.
    pub span_id: String,
    /// The id of its parent; empty for a root span.
    pub parent: String,
    /// The name of the span.
    pub name: String,
    /// The begin, in nanoseconds since 1970.
    pub start: u64,
    /// The end, in nanoseconds since 1970.
    pub end: u64,
    /// The attributes: texts and numbers.
    pub attributes: BTreeMap<String, Value>,
    /// The spans of its links, all of its own trace.
    pub links: Vec<String>,
    /// The message of its error.
    pub error: Option<String>,
    /// The trace flags.
    pub flags: u64,
}

impl Span {
    /// Returns an attribute, or null.
    pub fn attribute(&self, key: &str) -> &Value {
        self.attributes.get(key).unwrap_or(&Value::Null)
    }
}

/// How a collector answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// With success.
    Take,
    /// With this status and these headers, each with its line end.
    Refuse(u16, &'static str),
    /// With an answer of success that names some spans as refused.
    TakePartly(u8),
    /// Not at all.
    Hang,
    /// With an answer of success whose body has no end.
    Flood,
}

/// The headers of a request, by their names in small letters.
type Headers = BTreeMap<String, String>;

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    requests: Vec<Headers>,
    resources: Vec<BTreeMap<String, Value>>,
    problems: Vec<String>,
}

/// A collector.
pub struct Collector {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

/// The part of a collector that its connections share.
struct State {
    received: Mutex<Received>,
    behaviour: Mutex<Behaviour>,
    /// Bytes that were sent to hosts in floods.
    flooded: AtomicU64,
}

impl Collector {
    /// Starts a collector, which ends with the process.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start() -> Result<Collector> {
        Collector::start_at("127.0.0.1:0")
    }

    /// Starts a collector at an address.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start_at(address: &str) -> Result<Collector> {
        Collector::listen(address, "http", Ok)
    }

    /// Starts a collector that speaks TLS, with a certificate and its key of `tests/certificates`.
    ///
    /// # Errors
    /// If it cannot listen, or read the files.
    pub fn start_tls(name: &str) -> Result<Collector> {
        let file = |kind| checkout().join(format!("tests/certificates/{name}.{kind}.pem"));
        let chain = vec![CertificateDer::from_pem_file(file("cert"))?];
        let key = PrivateKeyDer::from_pem_file(file("key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key)?);
        Collector::listen("127.0.0.1:0", "https", move |stream| {
            Ok(StreamOwned::new(ServerConnection::new(config.clone())?, stream))
        })
    }

    /// Listens, and serves each connection on a thread of its own.
    fn listen<S: Read + Write + Send + 'static>(
        address: &str,
        scheme: &'static str,
        accept: impl Fn(TcpStream) -> Result<S> + Send + 'static,
    ) -> Result<Collector> {
        let listener = TcpListener::bind(address)?;
        let state = Arc::new(State {
            received: Mutex::default(),
            behaviour: Mutex::new(Behaviour::Take),
            flooded: AtomicU64::new(0),
        });
        let collector = Collector { address: listener.local_addr()?, scheme, state };
        let state = collector.state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, stream) = (state.clone(), accept(stream));
                thread::spawn(move || {
                    if let Err(problem) = stream.and_then(|stream| serve(stream, &state)) {
                        state.received.lock().problems.push(format!("{problem:#}"));
                    }
                });
            }
        });
        Ok(collector)
    }

    /// Returns the URL of the collector, as an operator gives it to a host.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Changes how it answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock() = behaviour;
    }

    /// Returns the number of requests so far.
    pub fn requests(&self) -> usize {
        self.state.received.lock().requests.len()
    }

    /// Returns the headers of the last request, by their names in small letters.
    pub fn last_headers(&self) -> Headers {
        self.state.received.lock().requests.last().cloned().unwrap_or_default()
    }

    /// Returns the attributes of the last resource.
    pub fn last_resource(&self) -> BTreeMap<String, Value> {
        self.state.received.lock().resources.last().cloned().unwrap_or_default()
    }

    /// Returns the bytes of floods so far.
    pub fn flooded(&self) -> u64 {
        self.state.flooded.load(SeqCst)
    }

    /// Returns the spans of a run, each once.
    ///
    /// # Errors
    /// If a request was malformed, or a span was sent twice with different contents.
    pub fn spans(&self, run: &str) -> Result<Vec<Span>> {
        let received = self.state.received.lock();
        ensure!(received.problems.is_empty(), "{:#?}", received.problems);
        let trace = run.replace('-', "");
        let mut spans: BTreeMap<&str, &Span> = BTreeMap::new();
        for span in received.spans.iter().filter(|span| span.trace_id == trace) {
            let known = spans.entry(&span.span_id).or_insert(span);
            ensure!(*known == span, "two contents of one span: {known:#?} and {span:#?}");
        }
        Ok(spans.into_values().cloned().collect())
    }

    /// Waits until a run has this number of spans, and returns them.
    ///
    /// # Errors
    /// If the spans are not there in time.
    pub fn wait_for(&self, run: &str, count: usize) -> Result<Vec<Span>> {
        let mut last = 0;
        until("the spans", || {
            let spans = self.spans(run)?;
            last = spans.len();
            Ok((spans.len() >= count).then_some(spans))
        })
        .with_context(|| format!("{last} spans, and not {count}"))
    }
}

/// Serves the requests of one connection.
fn serve(stream: impl Read + Write, state: &State) -> Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some((headers, body)) = read_request(&mut reader)? {
        let behaviour = state.behaviour.lock().clone();
        let mut received = state.received.lock();
        received.requests.push(headers);
        if matches!(behaviour, Behaviour::Take | Behaviour::Flood | Behaviour::TakePartly(_)) {
            let (resource, spans) = read_export(&body)?;
            received.resources.push(resource);
            received.spans.extend(spans);
        }
        drop(received);
        let stream = reader.get_mut();
        // A host may close the connection early, which is not an error.
        let _ = answer(stream, &behaviour, &state.flooded).and_then(|()| stream.flush());
    }
    Ok(())
}

/// Writes an answer.
fn answer(
    stream: &mut impl Write,
    behaviour: &Behaviour,
    flooded: &AtomicU64,
) -> std::io::Result<()> {
    let mut head = |status: u16, more: &str, length: usize| {
        let kind = "content-type: application/x-protobuf";
        let head =
            format!("HTTP/1.1 {status} x\r\n{kind}\r\n{more}content-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes())
    };
    match behaviour {
        Behaviour::Take => head(200, "", 0),
        Behaviour::Refuse(status, more) => head(*status, more, 0),
        Behaviour::TakePartly(rejected) => {
            let body = [0x0a, 4, 0x08, *rejected, 0x12, 0];
            head(200, "", body.len())?;
            stream.write_all(&body)
        }
        Behaviour::Hang => {
            thread::sleep(Duration::from_secs(600));
            Ok(())
        }
        Behaviour::Flood => {
            head(200, "", usize::MAX / 2)?;
            let chunk = [0x20; 64 * 1024];
            loop {
                stream.write_all(&chunk)?;
                flooded.fetch_add(chunk.len() as u64, SeqCst);
            }
        }
    }
}

/// Reads a request as the collector does with its defaults; nothing at the end of a connection.
fn read_request(reader: &mut impl BufRead) -> Result<Option<(Headers, Vec<u8>)>> {
    let mut line = String::new();
    // A host that is killed resets its connections.
    if !matches!(reader.read_line(&mut line), Ok(1..)) {
        return Ok(None);
    }
    ensure!(line.trim_end() == "POST /v1/traces HTTP/1.1", "{line:?}");
    let mut headers = Headers::new();
    loop {
        line.clear();
        if !matches!(reader.read_line(&mut line), Ok(1..)) {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let get = |name: &str| headers.get(name).map(String::as_str);
    ensure!(get("content-type") == Some("application/x-protobuf"), "{headers:?}");
    let length: usize = get("content-length").context("a length")?.parse()?;
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return Ok(None);
    }
    match get("content-encoding") {
        None => {}
        Some("gzip") => {
            let mut plain = Vec::new();
            GzDecoder::new(&*body).take(MAX_BODY_BYTES + 1).read_to_end(&mut plain)?;
            body = plain;
        }
        other => bail!("{other:?}"),
    }
    ensure!(body.len() as u64 <= MAX_BODY_BYTES, "a body of {} bytes", body.len());
    Ok(Some((headers, body)))
}

/// A field of a message of Protocol Buffers: a number, or bytes.
#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn number(self) -> Result<u64> {
        match self {
            Field::Number(number) => Ok(number),
            Field::Bytes(_) => bail!("bytes instead of a number"),
        }
    }

    fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            Field::Number(_) => bail!("a number instead of bytes"),
        }
    }

    fn text(self) -> Result<String> {
        Ok(std::str::from_utf8(self.bytes()?)?.to_owned())
    }

    fn id(self, bytes: usize) -> Result<String> {
        let id = self.bytes()?;
        ensure!(id.len() == bytes && id.iter().any(|byte| *byte != 0), "the id {id:?}");
        Ok(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Reads all fields of a message, each with its number.
fn fields(mut message: &[u8]) -> Result<Vec<(u64, Field<'_>)>> {
    fn varint(message: &mut &[u8]) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = message.split_first().context("a number is cut off")?;
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Ok(number);
            }
        }
        bail!("a number is too long")
    }
    fn take<'a>(message: &mut &'a [u8], bytes: usize) -> Result<&'a [u8]> {
        let (taken, rest) = message.split_at_checked(bytes).context("a field is cut off")?;
        *message = rest;
        Ok(taken)
    }
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => Field::Number(u64::from_le_bytes(take(&mut message, 8)?.try_into()?)),
            2 => {
                let length = usize::try_from(varint(&mut message)?)?;
                Field::Bytes(take(&mut message, length)?)
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut message, 4)?.try_into()?).into()),
            other => bail!("the wire type {other}"),
        };
        all.push((key >> 3, field));
    }
    Ok(all)
}

/// Reads an `ExportTraceServiceRequest`: the attributes of its resource, and its spans.
fn read_export(body: &[u8]) -> Result<(BTreeMap<String, Value>, Vec<Span>)> {
    let (mut resource, mut spans) = (BTreeMap::new(), Vec::new());
    for (number, field) in fields(body)? {
        ensure!(number == 1, "the field {number} of a request");
        for (number, field) in fields(field.bytes()?)? {
            match number {
                1 => {
                    for (number, field) in fields(field.bytes()?)? {
                        ensure!(number == 1, "the field {number} of a resource");
                        resource.extend([read_attribute(field.bytes()?)?]);
                    }
                }
                2 => {
                    for (number, field) in fields(field.bytes()?)? {
                        match number {
                            1 => ensure!(fields(field.bytes()?)?.len() == 2, "a scope"),
                            2 => spans.push(read_span(field.bytes()?)?),
                            other => bail!("the field {other} of a scope's spans"),
                        }
                    }
                }
                other => bail!("the field {other} of a resource's spans"),
            }
        }
    }
    ensure!(!spans.is_empty(), "a request without spans");
    Ok((resource, spans))
}

fn read_span(message: &[u8]) -> Result<Span> {
    let mut span = Span::default();
    let mut kind = 0;
    for (number, field) in fields(message)? {
        match number {
            1 => span.trace_id = field.id(16)?,
            2 => span.span_id = field.id(8)?,
            4 => span.parent = field.id(8)?,
            5 => span.name = field.text()?,
            6 => kind = field.number()?,
            7 => span.start = field.number()?,
            8 => span.end = field.number()?,
            9 => {
                let (key, value) = read_attribute(field.bytes()?)?;
                let before = span.attributes.insert(key.clone(), value);
                ensure!(before.is_none(), "two attributes {key}");
            }
            13 => span.links.push(read_link(field.bytes()?, &span.trace_id)?),
            15 => span.error = Some(read_error(field.bytes()?)?),
            16 => span.flags = field.number()?,
            other => bail!("the field {other} of a span"),
        }
    }
    ensure!(kind == 1 && !span.name.is_empty() && span.start <= span.end, "{kind}: {span:#?}");
    ensure!(!span.trace_id.is_empty() && !span.span_id.is_empty(), "{span:#?}");
    Ok(span)
}

fn read_link(message: &[u8], trace: &str) -> Result<String> {
    let mut linked = String::new();
    for (number, field) in fields(message)? {
        match number {
            1 => ensure!(field.id(16)? == trace, "a link to another trace"),
            2 => linked = field.id(8)?,
            6 => ensure!(field.number()? == 1, "the flags of a link"),
            other => bail!("the field {other} of a link"),
        }
    }
    Ok(linked)
}

/// Reads the status of a span, which is only sent for an error.
fn read_error(message: &[u8]) -> Result<String> {
    let (mut text, mut code) = (String::new(), 0);
    for (number, field) in fields(message)? {
        match number {
            2 => text = field.text()?,
            3 => code = field.number()?,
            other => bail!("the field {other} of a status"),
        }
    }
    ensure!(code == 2, "the status {code}");
    Ok(text)
}

fn read_attribute(message: &[u8]) -> Result<(String, Value)> {
    let (mut key, mut value) = (String::new(), Value::Null);
    for (number, field) in fields(message)? {
        match number {
            1 => key = field.text()?,
            2 => match fields(field.bytes()?)?.as_slice() {
                [(1, text)] => value = json!(text.text()?),
                [(3, number)] => value = json!(number.number()?.cast_signed()),
                other => bail!("the value {other:?}"),
            },
            other => bail!("the field {other} of an attribute"),
        }
    }
    ensure!(!key.is_empty() && !value.is_null(), "the attribute {key:?}");
    Ok((key, value))
}
