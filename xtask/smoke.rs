//! A program that `cargo xtask setup` compiles to test whether a Rust toolchain can
//! make components. It is never run. It uses much of the standard library, so that an
//! incomplete installation does not pass.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream, UdpSocket};

#[unsafe(no_mangle)]
pub extern "C" fn smoke() -> usize {
    let variables: HashMap<String, String> = std::env::vars().collect();
    println!("{variables:?} {:?}", std::time::SystemTime::now());
    let _ = std::thread::Builder::new().spawn(|| 1).map(|thread| thread.join());
    let _ = TcpStream::connect("127.0.0.1:1");
    let _ = TcpListener::bind("127.0.0.1:1").map(|listener| listener.accept().map(|_| ()));
    let _ = UdpSocket::bind("127.0.0.1:1").map(|socket| socket.send_to(b"x", "127.0.0.1:2"));
    std::fs::read_dir("/").map_or(0, |entries| entries.count()) + variables.len()
}
