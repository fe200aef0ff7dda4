//! A bad line: a TCP proxy between a host and its Postgres. A test can cut, delay, hold back and
//! refuse connections while it runs.
//!
//! Not here: anything of the protocol. Bytes are bytes.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The state of the line, which every chunk is subject to.
#[derive(Debug, Clone, Default)]
struct Weather {
    /// Delay of each chunk, in either direction.
    delay: Duration,
    /// True if nothing goes through, without an error to either side.
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
    weather: Option<watch::Sender<Weather>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy to `upstream`, without faults.
    pub fn start(upstream: SocketAddr) -> Result<Proxy> {
        let listener = StdListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The connections end with the runtime, and it with its thread.
        let thread = std::thread::spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, upstream, seen)) {
                eprintln!("a proxy ended: {error}");
            }
        });
        Ok(Proxy { address, weather: Some(weather), thread: Some(thread) })
    }

    /// Returns the address at which the proxy listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets all existing connections, on both sides.
    pub fn cut(&self) {
        self.change(|weather| weather.cuts += 1);
    }

    /// Holds back all bytes, as a silently dead line does: connections stay open, and new ones are
    /// accepted.
    pub fn hold(&self) {
        self.change(|weather| weather.held = true);
    }

    /// Delays each chunk.
    pub fn delay(&self, delay: Duration) {
        self.change(|weather| weather.delay = delay);
    }

    /// Resets new connections. (The port stays bound: another process might take it if it were
    /// given up.)
    pub fn refuse(&self) {
        self.change(|weather| weather.refusing = true);
    }

    /// Clears all faults. Held bytes go on.
    pub fn clear(&self) {
        self.change(|weather| *weather = Weather { cuts: weather.cuts, ..Weather::default() });
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        if let Some(weather) = &self.weather {
            weather.send_modify(change);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.weather.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Accepts connections until the proxy is dropped.
async fn serve(
    listener: StdListener,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        tokio::select! {
            changed = weather.changed() => if changed.is_err() {
                return Ok(());
            },
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                let mut weather = weather.clone();
                weather.mark_unchanged();
                tokio::spawn(connection(client, upstream, weather));
            }
        }
    }
}

async fn connection(
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
) {
    if weather.borrow().refusing {
        return reset(client);
    }
    let cuts = weather.borrow().cuts;
    // The other side knows nothing of a connection before it can be heard.
    match weather.wait_for(|weather| !weather.held || weather.cuts != cuts).await {
        Ok(now) if now.cuts == cuts => {}
        _ => return reset(client),
    }
    // Postgres may be down: then the client's connection ends as well.
    let Ok(server) = TcpStream::connect(upstream).await else { return reset(client) };
    let (mut client, mut server) = (client, server);
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut cut = weather.clone();
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            _ = cut.wait_for(|weather| weather.cuts != cuts) => true,
            () = pump(from_client, to_server, weather.clone()) => false,
            () = pump(from_server, to_client, weather) => false,
        }
    };
    if was_cut {
        reset(client);
        reset(server);
    }
}

/// Closes a connection with a reset, not gracefully.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Copies bytes, subject to the line's state, until one end is closed.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
) {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let length = match from.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let Ok(now) = weather.wait_for(|weather| !weather.held).await.map(|now| now.delay) else {
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
    use crate::PATIENCE;

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
        // A busy machine takes its time.
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Checks that the stream returns nothing for a while.
    fn ensure_silence(stream: &mut TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        assert_eq!(say(stream).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        Ok(stream.set_read_timeout(Some(PATIENCE))?)
    }

    fn say(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_all(b"x")?;
        hear(stream)
    }

    fn hear(stream: &mut TcpStream) -> std::io::Result<u8> {
        let mut byte = [0];
        stream.read_exact(&mut byte).map(|()| byte[0])
    }

    #[test]
    fn the_proxy_delays_holds_cuts_and_refuses() -> Result<()> {
        let proxy = Proxy::start(echo()?)?;
        let mut stream = connect(&proxy)?;
        assert_eq!(say(&mut stream)?, b'x');

        proxy.delay(Duration::from_millis(40));
        let from = Instant::now();
        assert_eq!(say(&mut stream)?, b'x');
        assert!(from.elapsed() >= Duration::from_millis(80), "there and back");

        proxy.hold();
        ensure_silence(&mut stream)?;
        assert!(connect(&proxy).is_ok());
        proxy.clear();
        assert_eq!(hear(&mut stream)?, b'x', "what was held goes on");

        proxy.refuse();
        assert_eq!(say(&mut stream)?, b'x', "what is there stays");
        assert!(say(&mut connect(&proxy)?).is_err());
        proxy.clear();

        proxy.cut();
        let ended = hear(&mut stream).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        assert_eq!(say(&mut connect(&proxy)?)?, b'x', "new ones are welcome");
        Ok(())
    }

    #[test]
    fn a_held_connection_can_be_cut() -> Result<()> {
        let proxy = Proxy::start(echo()?)?;
        let mut stream = connect(&proxy)?;
        assert_eq!(say(&mut stream)?, b'x');
        proxy.hold();
        ensure_silence(&mut stream)?;
        proxy.cut();
        let ended = hear(&mut stream).map_err(|error| error.kind());
        assert_eq!(ended, Err(ErrorKind::ConnectionReset));
        Ok(())
    }

    #[test]
    fn an_unreachable_target_closes_the_connection() -> Result<()> {
        let nobody = StdListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let proxy = Proxy::start(nobody)?;
        assert!(say(&mut connect(&proxy)?).is_err());
        Ok(())
    }
}
