//! A misbehaving HTTP server: answers slowly, without end, or with a redirect to an internal
//! address. Listens on 127.0.0.2, so that a host can be allowed to call it and nothing else on this
//! machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Result;

pub struct HttpServer(SocketAddr);

impl HttpServer {
    /// Starts the server, which ends with the process.
    pub fn start() -> Result<HttpServer> {
        let listener = TcpListener::bind("127.0.0.2:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up ends its own answer.
                thread::spawn(move || drop(answer(stream)));
            }
        });
        Ok(HttpServer(address))
    }

    pub fn address(&self) -> SocketAddr {
        self.0
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n";
    match first.split(' ').nth(1).unwrap_or_default() {
        "/redirect" => stream.write_all(
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/inside\r\ncontent-length: 0\r\n\r\n",
        ),
        "/swallow" => {
            let mut piece = [0; 4096];
            while stream.read(&mut piece)? > 0 {}
            Ok(())
        }
        "/drip" => {
            stream.write_all(&[OK, b"\r\n"].concat())?;
            loop {
                stream.write_all(b"x")?;
                thread::sleep(Duration::from_millis(20));
            }
        }
        "/endless" => {
            stream.write_all(&[OK, b"\r\n"].concat())?;
            loop {
                stream.write_all(&[b'x'; 64 * 1024])?;
            }
        }
        _ => stream.write_all(&[OK, b"content-length: 2\r\n\r\nok"].concat()),
    }
}
