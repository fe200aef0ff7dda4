//! The compiler program of this crate's tests: the real compiler if its argument is `compile`,
//! else a program that fails in one way.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Write, stderr, stdin, stdout};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use exosphere_sandbox::compiler::{Confinement, confine, main as compile};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let behavior = arguments.next().unwrap_or_default();
    let rest: Vec<OsString> = arguments.collect();
    if behavior == "compile" {
        return compile(rest);
    }
    if behavior == "host" {
        return host();
    }
    if behavior == "killed" {
        // The system kills a process in this way when it is out of memory.
        let _ = kill_process(rustix::process::getpid(), Signal::KILL);
    }
    if let Some(marker) =
        behavior.to_str().and_then(|behavior| behavior.strip_prefix("killed-once="))
    {
        if File::create_new(marker).is_ok() {
            let _ = kill_process(rustix::process::getpid(), Signal::KILL);
        }
        return compile(rest);
    }
    let Some(confinement) = Confinement::parse(rest) else { return ExitCode::from(2) };
    let parent = rustix::process::getppid();
    let names: Vec<_> =
        std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
    let environment = names.join(",");
    let confined = confine(&confinement);
    match behavior.to_str().unwrap_or_default() {
        "probe" => probe(parent, environment, format!("{confined:?}")),
        "hang" | "drop-hang" | "open-hang" => std::thread::sleep(Duration::from_secs(600)),
        "spin" => loop {
            std::hint::black_box(());
        },
        "eat" => loop {
            std::mem::forget(std::hint::black_box(vec![1_u8; 1 << 20]));
        },
        "babble" => while stdout().write_all(&[b'x'; 4096]).is_ok() {},
        "nonsense" => _ = stdout().write_all(b"\x04\0\0\0\0\0\0\0{}{}"),
        "shout" => while stderr().write_all(b"words \x1b[31m without end\n").is_ok() {},
        "leave" => return ExitCode::from(3),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Tries operations that the confinement forbids, and writes each result to standard
/// error: `name=errno`, 0 if it succeeded.
fn probe(parent: Option<Pid>, environment: String, confined: String) {
    // The real compiler also reads its input first.
    let _ = std::io::copy(&mut std::io::Read::take(stdin(), 8), &mut std::io::sink());
    let errno = |result: std::io::Result<()>| match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(-1),
    };
    let attempts = [
        ("tcp", errno(TcpStream::connect("127.0.0.1:9").map(drop))),
        ("listen", errno(TcpListener::bind("127.0.0.1:0").map(drop))),
        ("udp", errno(UdpSocket::bind("127.0.0.1:0").map(drop))),
        ("pair", errno(UnixStream::pair().map(drop))),
        ("read", errno(File::open("/etc/passwd").map(drop))),
        ("write", errno(File::create("/tmp/exosphere-must-not-be").map(drop))),
        ("remove", errno(std::fs::remove_file("/tmp/exosphere-must-not-be"))),
        ("list", errno(std::fs::read_dir("/").map(drop))),
        ("fork", errno(Command::new("/bin/true").spawn().map(drop))),
        ("exec", errno(Err(Command::new("/bin/true").exec()))),
        ("signal", errno(signal(parent))),
        ("execute", errno(make_executable())),
        ("thread", errno(std::thread::Builder::new().spawn(|| ()).map(drop))),
    ];
    let attempts: Vec<_> = attempts.iter().map(|(name, errno)| format!("{name}={errno}")).collect();
    eprintln!("confined={confined} environment={environment} {}", attempts.join(" "));
    std::process::abort();
}

/// Maps executable memory.
fn make_executable() -> std::io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    // SAFETY: the mapping is new and unused.
    #[expect(unsafe_code, reason = "no other way to try")]
    let mapped = unsafe {
        let all = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
        mmap_anonymous(std::ptr::null_mut(), 4096, all, MapFlags::PRIVATE)
    };
    mapped.map(|_| ()).map_err(Into::into)
}

/// Starts a long compilation, prints its process id and waits forever, like a host that is
/// about to be killed.
fn host() -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return ExitCode::FAILURE };
    let child = Command::new(program)
        .args(["compile", "600", "4294967296"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return ExitCode::FAILURE };
    let Some(mut input) = child.stdin.take() else { return ExitCode::FAILURE };
    let bytes = long();
    let sent = input.write_all(&(bytes.len() as u64).to_le_bytes());
    if sent.and_then(|()| input.write_all(&bytes)).is_err() {
        return ExitCode::FAILURE;
    }
    std::thread::sleep(Duration::from_millis(300));
    println!("{}", child.id());
    std::thread::sleep(Duration::from_secs(600));
    drop(input);
    ExitCode::SUCCESS
}

/// Returns a component that takes the compiler minutes: one module of many functions of
/// the maximum size.
fn long() -> Vec<u8> {
    const FUNCTIONS: usize = 100;
    const CALLS: usize = 20_000;
    let unsigned = |mut number: usize| {
        let mut bytes = Vec::new();
        loop {
            let low = (number & 0x7f) as u8;
            number >>= 7;
            bytes.push(if number == 0 { low } else { low | 0x80 });
            if number == 0 {
                return bytes;
            }
        }
    };
    let section = |id: u8, body: Vec<u8>| [vec![id], unsigned(body.len()), body].concat();
    // `memory.grow` by nothing, dropped; each is a call that may fail.
    let code = [vec![0], [0x41, 0, 0x40, 0, 0x1a].repeat(CALLS), vec![0x0b]].concat();
    let code = [unsigned(code.len()), code].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, b"\x01\x60\0\0".to_vec()),
        section(3, [unsigned(FUNCTIONS), vec![0; FUNCTIONS]].concat()),
        section(5, b"\x01\0\x01".to_vec()),
        section(10, [unsigned(FUNCTIONS), code.repeat(FUNCTIONS)].concat()),
    ]
    .concat();
    [b"\0asm\x0d\0\x01\0".to_vec(), section(1, module)].concat()
}

fn signal(process: Option<Pid>) -> std::io::Result<()> {
    let process = process.ok_or(std::io::ErrorKind::NotFound)?;
    Ok(kill_process(process, Signal::USR1)?)
}
