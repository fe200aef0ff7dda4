//! A Postgres for tests: a temporary server on a free port, as durable as in production (`fsync`
//! and `synchronous_commit` are on).
//!
//! Not here: a client. SQL is run by `psql`.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use parking_lot::Mutex;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::{tail, until};

/// Debian's folder of Postgres, with a subfolder for each version.
const DEBIAN_FOLDER: &str = "/usr/lib/postgresql";

/// The server's user if the tests run as root, which Postgres rejects.
const SERVER_USER: &str = "postgres";

/// Appended to `postgresql.conf`, where the last value counts.
const SERVER_SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 400
# A stop waits for clients that have connected and say nothing.
authentication_timeout = 3s
log_line_prefix = '%m [%p] %d '
";

/// The cleaner: waits for the end of its standard input, which the end of the test closes, then
/// stops the server and removes its folder.
const CLEANER_SCRIPT: &str = r#"
read -r _
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null; then
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
fi
rm -rf "$0"
"#;

/// The way to stop the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Disconnects clients, and writes everything to disk.
    Fast,
    /// Stops like a crash: the next start recovers from the log.
    Immediate,
}

/// A temporary server, running unless it was stopped.
#[derive(Debug)]
pub struct Postgres {
    folder: PathBuf,
    tools: Tools,
    port: u16,
    server: Mutex<Option<Child>>,
    cleaner: Child,
}

impl Postgres {
    /// Starts a new server.
    pub fn start() -> Result<Postgres> {
        let tools = Tools::find()?;
        // The cleaner removes the folder.
        let folder = tempfile::Builder::new().prefix("exosphere-pg-").tempdir()?.keep();
        let cleaner = start_cleaner(&folder)?;
        let server = Mutex::new(None);
        let mut postgres = Postgres { folder, tools, port: 0, server, cleaner };
        postgres.initialise()?;
        // Another process may take the free port first.
        let mut started = postgres.start_on_a_free_port();
        for _ in 0..2 {
            if started.is_ok() {
                break;
            }
            started = postgres.start_on_a_free_port();
        }
        started.map(|()| postgres)
    }

    /// Returns the shared server of this test program, for tests that do not stop it and create
    /// their own databases.
    pub fn shared() -> Result<&'static Postgres> {
        static SHARED: OnceLock<Result<Postgres, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Postgres::start().map_err(|cause| format!("{cause:#}")));
        shared.as_ref().map_err(|cause| anyhow!("{cause}"))
    }

    /// Returns the address at which the server listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Returns the URL of a database.
    pub fn url(&self, database: &str) -> String {
        Postgres::url_at(self.address(), database)
    }

    /// Returns the URL of a database behind a proxy.
    pub fn url_at(address: SocketAddr, database: &str) -> String {
        format!("postgres://postgres@{address}/{database}")
    }

    /// Creates an empty database, and returns its URL.
    pub fn create_database(&self, name: &str) -> Result<String> {
        self.psql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0"))?;
        Ok(self.url(name))
    }

    /// Stops the server gracefully or like a crash.
    pub fn stop(&self, mode: Mode) -> Result<()> {
        let Some(mut server) = self.server.lock().take() else { return Ok(()) };
        let signal = match mode {
            Mode::Fast => Signal::INT,
            Mode::Immediate => Signal::QUIT,
        };
        let pid = self.postmaster().context("postmaster.pid is missing")?;
        kill_process(pid, signal)?;
        until("the end of Postgres", || Ok(server.try_wait()?))?;
        Ok(())
    }

    /// Starts the server again, on the same port.
    pub fn start_again(&self) -> Result<()> {
        let mut server = self.server.lock();
        ensure!(server.is_none(), "the server is already running");
        *server = Some(self.spawn()?);
        Ok(())
    }

    /// Stops the server and starts it again.
    pub fn restart(&self, mode: Mode) -> Result<()> {
        self.stop(mode)?;
        self.start_again()
    }

    /// Returns the plain output of `psql` for a statement.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.tools.path("psql"))
            .args(["--no-psqlrc", "--no-align", "--tuples-only", "--quiet"])
            .args(["--set", "ON_ERROR_STOP=1", "--host", "127.0.0.1", "--username", "postgres"])
            .args(["--port", &self.port.to_string(), "--dbname", database, "--command", sql])
            .stdin(Stdio::null())
            .output()
            .context("cannot run psql")?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {sql}: {}", message.trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Returns the end of the server's log.
    pub fn tail(&self) -> String {
        tail(&self.folder.join("log"), 40, |_| true)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn initialise(&self) -> Result<()> {
        if self.tools.as_user.is_some() {
            let owner = format!("{SERVER_USER}:");
            run(Command::new("chown").arg(owner).arg(&self.folder))?;
        }
        let mut initdb = self.tools.command("initdb");
        initdb.arg("--pgdata").arg(self.data());
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]);
        // A power loss would end the test, too: syncing is not needed.
        initdb.args(["--no-sync", "--no-instructions"]);
        run(&mut initdb)?;
        let folder = self.folder.display();
        let mut settings =
            OpenOptions::new().append(true).open(self.data().join("postgresql.conf"))?;
        writeln!(settings, "{SERVER_SETTINGS}unix_socket_directories = '{folder}'")?;
        Ok(())
    }

    fn start_on_a_free_port(&mut self) -> Result<()> {
        self.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        self.start_again()
    }

    /// Starts the server and waits until it accepts connections.
    fn spawn(&self) -> Result<Child> {
        // No server is running: the file is a leftover.
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        let path = self.folder.join("log");
        let log = OpenOptions::new().create(true).append(true).open(&path)?;
        let mut command = self.tools.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = command.spawn().context("cannot run postgres")?;
        until("Postgres", || {
            if let Some(status) = server.try_wait()? {
                bail!("Postgres ended ({status}):\n{}", self.tail());
            }
            Ok(self.is_ready().then_some(()))
        })?;
        Ok(server)
    }

    /// Returns whether the server is ready, by the eighth line of `postmaster.pid`.
    fn is_ready(&self) -> bool {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        text.lines().nth(7).is_some_and(|line| line.trim() == "ready")
    }

    /// Returns the process id of the server itself, not of a wrapper.
    fn postmaster(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        Pid::from_raw(text.lines().next()?.trim().parse().ok()?)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.stop(Mode::Immediate);
        // Closes its standard input first.
        let _ = self.cleaner.wait();
    }
}

/// Starts the cleaner in a process group of its own, which a Ctrl-C does not reach.
fn start_cleaner(folder: &Path) -> Result<Child> {
    let mut cleaner = Command::new("sh");
    cleaner.args(["-c", CLEANER_SCRIPT]).arg(folder).stdin(Stdio::piped());
    cleaner.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    cleaner.spawn().context("cannot run sh")
}

/// The programs of Postgres.
#[derive(Debug)]
struct Tools {
    folder: PathBuf,
    /// The command prefix by which root becomes another user.
    as_user: Option<Vec<String>>,
}

impl Tools {
    fn find() -> Result<Tools> {
        let folder = newest().or_else(configured).or_else(|| on_path("postgres"));
        let folder = folder.context(
            "Postgres is not installed: these tests start their own server; \
             install the Debian package `postgresql`",
        )?;
        let as_user = getuid().is_root().then(as_user).transpose()?;
        Ok(Tools { folder, as_user })
    }

    /// Returns the path of a program, or its name if it is elsewhere on the PATH.
    fn path(&self, program: &str) -> PathBuf {
        let path = self.folder.join(program);
        if path.is_file() { path } else { program.into() }
    }

    /// Builds a command that runs as a user other than root, in a process group of its own.
    fn command(&self, program: &str) -> Command {
        let program = self.path(program);
        let mut command = match self.as_user.as_deref() {
            Some([first, rest @ ..]) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            _ => Command::new(program),
        };
        // The other user may have no access to the test's folder.
        command.current_dir("/").process_group(0);
        command
    }
}

/// Returns the newest version that Debian has installed.
fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN_FOLDER).ok()?.flatten().filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path().join("bin");
        folder.join("postgres").is_file().then_some((version, folder))
    });
    versions.max().map(|(_, folder)| folder)
}

/// Returns the folder that `pg_config` names.
fn configured() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    folder.join("postgres").is_file().then_some(folder)
}

/// Returns the folder of the PATH that has a program.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|folder| folder.join(program).is_file())
}

/// Returns the command prefix by which root becomes another user.
fn as_user() -> Result<Vec<String>> {
    let user = format!("--reuid={SERVER_USER}");
    let group = format!("--regid={SERVER_USER}");
    let prefix: &[&str] = match (on_path("setpriv"), on_path("runuser")) {
        // `setpriv` becomes the program; `runuser` stays as its parent.
        (Some(_), _) => &["setpriv", &user, &group, "--init-groups", "--"],
        (None, Some(_)) => &["runuser", "-u", SERVER_USER, "--"],
        (None, None) => bail!("Postgres rejects root: install `setpriv` or `runuser`"),
    };
    Ok(prefix.iter().map(|word| (*word).to_owned()).collect())
}

/// Runs a program to its end, which must be a success.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let program = || OsStr::to_string_lossy(&name).into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(program)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", program(), output.status, stderr.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn postgres_keeps_data_across_restarts() -> Result<()> {
        let from = Instant::now();
        let postgres = Postgres::start()?;
        println!("started in {:?}", from.elapsed());
        let folder = postgres.folder.clone();
        postgres.create_database("kept")?;
        for setting in ["fsync", "synchronous_commit"] {
            assert_eq!(postgres.psql("kept", &format!("SHOW {setting}"))?, "on");
        }
        postgres.psql("kept", "CREATE TABLE t (n INT)")?;
        for (n, mode) in [(1, Mode::Fast), (2, Mode::Immediate)] {
            postgres.psql("kept", &format!("INSERT INTO t VALUES ({n})"))?;
            let from = Instant::now();
            postgres.restart(mode)?;
            println!("restarted ({mode:?}) in {:?}", from.elapsed());
            assert_eq!(postgres.psql("kept", "SELECT COUNT(*) FROM t")?, n.to_string());
        }
        assert!(postgres.psql("kept", "SELECT nothing").is_err());
        postgres.stop(Mode::Fast)?;
        assert!(postgres.psql("kept", "SELECT 1").is_err());
        postgres.start_again()?;
        drop(postgres);
        assert!(!folder.exists());
        Ok(())
    }

    /// A killed test does not drop its server.
    #[test]
    fn killed_tests_leave_no_server() -> Result<()> {
        let mut postgres = Postgres::start()?;
        let folder = postgres.folder.clone();
        let pid = postgres.postmaster().context("the server is running")?;
        drop(postgres.cleaner.stdin.take());
        let mut server = postgres.server.lock().take().context("the server is running")?;
        until("the end of Postgres", || Ok(server.try_wait()?))?;
        until("the end of its folder", || Ok((!folder.exists()).then_some(())))?;
        assert!(kill_process(pid, Signal::QUIT).is_err());
        Ok(())
    }
}
