//! A faulty network: a TCP proxy between a host and its Postgres. A test can cut, delay, hold and
//! refuse connections.
//!
//! Not here: the protocol of Postgres.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The faults of the connections.
#[derive(Debug, Clone, Default)]
struct Faults {
    /// Delay of each chunk, in either direction.
    delay: Duration,
    /// True if no byte passes, without an error to either side.
    held: bool,
    /// True if new connections are reset.
    refusing: bool,
    /// Number of cuts of all connections.
    cuts: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    /// Taken when the proxy is dropped, which ends the thread.
    faults: Option<watch::Sender<Faults>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy to `upstream`, without faults.
    pub fn start(upstream: SocketAddr) -> Result<Proxy> {
        let listener = StdListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (faults, seen) = watch::channel(Faults::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The connections end with the runtime, and the runtime ends with its thread.
        let thread = std::thread::spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, upstream, seen)) {
                eprintln!("a proxy ended: {error}");
            }
        });
        Ok(Proxy { address, faults: Some(faults), thread: Some(thread) })
    }

    /// Returns the address at which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets all existing connections, on both sides.
    pub fn cut(&self) {
        self.change(|faults| faults.cuts += 1);
    }

    /// Holds all bytes, like a network that drops packets: connections stay open, and new ones are
    /// accepted.
    pub fn hold(&self) {
        self.change(|faults| faults.held = true);
    }

    /// Forwards each chunk only after `delay`.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Resets new connections. The port stays bound, so that no other process takes it.
    pub fn refuse(&self) {
        self.change(|faults| faults.refusing = true);
    }

    /// Clears all faults, and forwards held bytes.
    pub fn clear(&self) {
        self.change(|faults| *faults = Faults { cuts: faults.cuts, ..Faults::default() });
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        if let Some(faults) = &self.faults {
            faults.send_modify(change);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.faults.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts connections until the proxy is dropped.
async fn serve(
    listener: StdListener,
    upstream: SocketAddr,
    mut faults: watch::Receiver<Faults>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        tokio::select! {
            changed = faults.changed() => if changed.is_err() {
                return Ok(());
            },
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                let mut faults = faults.clone();
                faults.mark_unchanged();
                tokio::spawn(connection(client, upstream, faults));
            }
        }
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, mut faults: watch::Receiver<Faults>) {
    if faults.borrow().refusing {
        return reset(client);
    }
    let cuts = faults.borrow().cuts;
    // A held connection is not opened to the other side.
    match faults.wait_for(|faults| !faults.held || faults.cuts != cuts).await {
        Ok(now) if now.cuts == cuts => {}
        _ => return reset(client),
    }
    // If Postgres is down, the client's connection ends.
    let Ok(server) = TcpStream::connect(upstream).await else { return reset(client) };
    let (mut client, mut server) = (client, server);
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut cut = faults.clone();
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = cut.wait_for(|faults| faults.cuts != cuts) => true,
            () = pump(from_client, to_server, faults.clone()) => false,
            () = pump(from_server, to_client, faults) => false,
        }
    };
    if is_cut {
        reset(client);
        reset(server);
    }
}

/// Closes a connection with a reset, not gracefully.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Copies bytes with the current faults, until one end is closed.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Faults>) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let length = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let Ok(now) = faults.wait_for(|faults| !faults.held).await.map(|now| now.delay) else {
            return;
        };
        if !now.is_zero() {
            tokio::time::sleep(now).await;
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;
    use crate::MAX_WAIT;

    /// Starts an echo server.
    fn echo() -> Result<SocketAddr> {
        let listener = StdListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
                });
            }
        });
        Ok(address)
    }

    fn connect(proxy: &Proxy) -> Result<TcpStream> {
        let stream = TcpStream::connect(proxy.address())?;
        // A busy machine may be slow.
        stream.set_read_timeout(Some(MAX_WAIT))?;
        Ok(stream)
    }

    /// Checks that the stream returns nothing for a while.
    fn ensure_silence(stream: &mut TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        assert_eq!(echo_byte(stream).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        Ok(stream.set_read_timeout(Some(MAX_WAIT))?)
    }

    fn echo_byte(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x")?;
        read_byte(stream)
    }

    fn read_byte(stream: &mut TcpStream) -> std::io::Result<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    }

    #[test]
    fn the_proxy_delays_holds_cuts_and_refuses() -> Result<()> {
        let proxy = Proxy::start(echo()?)?;
        let mut stream = connect(&proxy)?;
        assert_eq!(echo_byte(&mut stream)?, b'x');

        proxy.delay(Duration::from_millis(40));
        let from = Instant::now();
        assert_eq!(echo_byte(&mut stream)?, b'x');
        assert!(from.elapsed() >= Duration::from_millis(80), "there and back");

        proxy.hold();
        ensure_silence(&mut stream)?;
        assert!(connect(&proxy).is_ok());
        proxy.clear();
        assert_eq!(read_byte(&mut stream)?, b'x', "held bytes are forwarded");

        proxy.refuse();
        assert_eq!(echo_byte(&mut stream)?, b'x', "an existing connection stays");
        assert!(echo_byte(&mut connect(&proxy)?).is_err());
        proxy.clear();

        proxy.cut();
        let ended = read_byte(&mut stream).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        assert_eq!(echo_byte(&mut connect(&proxy)?)?, b'x', "new connections are accepted");
        Ok(())
    }

    #[test]
    fn a_held_connection_can_be_cut() -> Result<()> {
        let proxy = Proxy::start(echo()?)?;
        let mut stream = connect(&proxy)?;
        assert_eq!(echo_byte(&mut stream)?, b'x');
        proxy.hold();
        ensure_silence(&mut stream)?;
        proxy.cut();
        let ended = read_byte(&mut stream).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        Ok(())
    }

    #[test]
    fn an_unreachable_target_closes_the_connection() -> Result<()> {
        let unused = StdListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let proxy = Proxy::start(unused)?;
        assert!(echo_byte(&mut connect(&proxy)?).is_err());
        Ok(())
    }
}
