//! The client of the load generator: HTTP/1.1 on persistent connections, as cheap as possible,
//! since it shares the processors with the system under test.

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// An HTTP connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    authorization: String,
}

impl Connection {
    /// Connects to `http://HOST:PORT`, for requests with a key, unless that is empty.
    pub async fn open(url: &str, authorization: &str) -> Result<Connection> {
        let authority = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The task ends with the connection.
        tokio::spawn(connection);
        Ok(Connection { sender, authority, authorization: authorization.to_owned() })
    }

    /// Sends a request with a JSON body, and returns the bytes of the answer, which must be a
    /// success.
    pub async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.authority)
            .header("content-type", "application/json");
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        let request = request.body(Full::new(body))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        Ok(bytes)
    }
    /// Sends a request with a JSON body, and returns the answer as JSON, which must be a success.
    pub async fn json(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let bytes = self.call(method, path, body.to_string().into()).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
