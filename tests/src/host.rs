//! A host of a test: a process of the real binary on a data folder, and calls of its API.
//!
//! Not here: several hosts on one database (`cluster`), and one namespace of a host (`tenant`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use reqwest::blocking::{Client, ClientBuilder, Response};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{MAX_WAIT, binary, component, good, percent, problem, until};

/// A host: a process of the real binary, and its data folder.
#[derive(Debug)]
pub struct Host {
    process: Child,
    url: String,
    key: String,
    client: Client,
    data: PathBuf,
    _folder: Option<TempDir>,
}

impl Host {
    /// Starts a host on a new folder.
    pub fn start() -> Result<Host> {
        let folder = tempfile::tempdir()?;
        let mut host = Host::start_in(folder.path())?;
        host._folder = Some(folder);
        Ok(host)
    }

    /// Starts a host on an existing folder.
    pub fn start_in(data: &Path) -> Result<Host> {
        Host::start_with(data, &[], |_| ())
    }

    /// Starts a host with further arguments; `set_up` may change the command.
    pub fn start_with(
        data: &Path,
        arguments: &[&str],
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Host> {
        Host::start_of(&binary()?, data, arguments, set_up)
    }

    /// Starts a host of another binary, for example of an earlier build.
    pub fn start_of(
        binary: &Path,
        data: &Path,
        arguments: &[&str],
        set_up: impl FnOnce(&mut Command),
    ) -> Result<Host> {
        install_provider();
        let mut command = Command::new(binary);
        command.arg("serve").arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
        command.args(arguments).env("EXOSPHERE_LOG", "warn").stdout(Stdio::piped());
        set_up(&mut command);
        let mut process = command.spawn()?;
        let line =
            first_line(process.stdout.take().context("the host has no pipe for its output")?);
        let url = line.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        if !url.starts_with("http") {
            // A host that hangs prints nothing, and would never end.
            let ended = process.try_wait()?;
            process.kill()?;
            bail!("the host did not start: it printed {line:?}; {ended:?}, {}", process.wait()?);
        }
        let key = admin_key(data, arguments)?;
        let client = client(&key, MAX_WAIT)?;
        Ok(Host { process, url, key, client, data: data.to_owned(), _folder: None })
    }

    /// Finds the admin key of a database on which another host that started beside this one was
    /// first.
    pub(crate) fn find_key(&mut self, database: &str) -> Result<()> {
        if self.key.is_empty() {
            self.key = admin_key(&self.data, &["--database", database])?;
            self.client = client(&self.key, MAX_WAIT)?;
        }
        Ok(())
    }

    /// Returns the admin key of the host's database, or an empty text if it has none.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the value of the header `Authorization` with the admin key.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.key)
    }

    /// Returns a client of its own, with the admin key.
    pub fn client(&self, timeout: Duration) -> Result<Client> {
        client(&self.key, timeout)
    }

    /// Returns a call of the command line, for this host and with the admin key.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command.args(["--host", &self.url]).env("EXOSPHERE_KEY", &self.key);
        command.env_remove("EXOSPHERE_HOST").env_remove("EXOSPHERE_NAMESPACE");
        Ok(command)
    }

    /// Returns the URL at which the host listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the host's data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns the host's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Kills the host with SIGKILL, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Sends the host a SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends the host a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            Pid::from_raw(i32::try_from(self.pid())?).context("the host has no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Returns the exit status, if the host has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// Waits for the host to end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        until("the end of the host", || self.ended())
    }

    /// Builds a request to a path below the namespace `default`, or to the rest of a path that
    /// begins with `//`.
    pub fn request(&self, method: &str, path: &str) -> Result<reqwest::blocking::RequestBuilder> {
        let url = if path.starts_with("//") {
            format!("{}{}", self.url, &path[1..])
        } else {
            format!("{}/v1/namespaces/default{path}", self.url)
        };
        Ok(self.client.request(method.parse()?, url))
    }

    /// Returns the answer to a GET, which must be a success.
    pub fn get(&self, path: &str) -> Result<Value> {
        good(self.request("GET", path)?.send()?)
    }

    /// Returns the answer to a request with a body, which must be a success.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        good(self.request(method, path)?.json(body).send()?)
    }

    /// Returns the status and the problem of a request that must fail.
    pub fn refused(&self, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
        problem(self.request(method, path)?.json(body).send()?)
    }

    /// Uploads a plugin of this project under its own name.
    pub fn push(&self, name: &str) -> Result<Value> {
        good(self.upload(name, component(name)?)?)
    }

    /// Uploads bytes as a plugin.
    pub fn upload(&self, name: &str, bytes: Vec<u8>) -> Result<Response> {
        let request = self.request("POST", &format!("/plugins?name={name}&version=test"))?;
        Ok(request.header("content-type", "application/wasm").body(bytes).send()?)
    }

    /// Replaces the grants of a plugin in the namespace `default`.
    pub fn grant(&self, plugin: &str, grants: &Value) -> Result<Value> {
        self.send("PUT", &format!("//v1/operator/namespaces/default/grants/{plugin}"), grants)
    }

    /// Returns the number of states that the host has claimed.
    pub fn holding(&self) -> Result<u64> {
        let hosts = self.get("//v1/operator/hosts")?;
        hosts["holding"].as_u64().context("the list of hosts has no `holding`")
    }

    /// Creates a key of the API, for all namespaces unless the request names some, and returns it.
    pub fn new_key(&self, request: &Value) -> Result<String> {
        let mut request = request.clone();
        let members = request.as_object_mut().context("a request is an object")?;
        members.entry("namespaces").or_insert_with(|| json!(["*"]));
        let created = self.send("POST", "//v1/operator/keys", &request)?;
        Ok(created["key"].as_str().context("a key is shown once")?.to_owned())
    }

    /// Applies the settings of a namespace.
    pub fn namespace(&self, namespace: &str, settings: &Value) -> Result<Value> {
        self.send("PUT", &format!("//v1/operator/namespaces/{namespace}"), settings)
    }

    /// Applies a graph in the namespace `default`.
    pub fn apply(&self, name: &str, graph: &Value) -> Result<Value> {
        self.send("PUT", &format!("/graphs/{name}"), graph)
    }

    /// Starts a run, and returns its id.
    pub fn run(&self, graph: &str, inputs: &Value, store: &Value) -> Result<String> {
        let body = json!({"inputs": inputs, "store": store});
        let run = self.send("POST", &format!("/graphs/{graph}/runs"), &body)?;
        Ok(run["run"].as_str().context("a run has an id")?.to_owned())
    }

    /// Waits for the end of a run, and returns it.
    pub fn wait_for(&self, run: &str) -> Result<Value> {
        self.wait_until(run, |run| run["status"] != "RUNNING")
    }

    /// Waits until a run matches `wanted`, and returns it.
    pub fn wait_until(&self, run: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + MAX_WAIT;
        let mut found = self.get(&format!("/runs/{run}"))?;
        while !wanted(&found) {
            ensure!(Instant::now() < end, "timed out: the run is still {found:#}");
            let version = found["version"].as_i64().unwrap_or_default();
            found = self.get(&format!("/runs/{run}?after={version}&wait_ms=2000"))?;
        }
        Ok(found)
    }

    /// Applies a graph, starts a run of it and waits for its end.
    pub fn result_of(&self, name: &str, graph: &Value, inputs: &Value) -> Result<Value> {
        self.apply(name, graph)?;
        let run = self.run(name, inputs, &json!({}))?;
        self.wait_for(&run)
    }

    /// Returns all states of a run at an identifier, with outputs and attempts.
    pub fn states(&self, run: &str, identifier: &str) -> Result<Vec<Value>> {
        let mut states = Vec::new();
        for state in self.list(run, &format!("identifier={identifier}"))? {
            let path = format!("/runs/{run}/states/{}", path_of(&state)?);
            states.push(self.get(&path)?);
        }
        Ok(states)
    }

    /// Returns all states of a run that match a filter, page by page.
    pub fn list(&self, run: &str, filter: &str) -> Result<Vec<Value>> {
        self.pages(&format!("/runs/{run}/states"), filter)
    }

    pub(crate) fn pages(&self, path: &str, filter: &str) -> Result<Vec<Value>> {
        let mut states = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.get(&format!("{path}?{filter}&limit=1000{after}"))?;
            states.extend(page["states"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", percent(next)),
                None => return Ok(states),
            }
        }
    }

    /// Returns the one output of the one state at an identifier.
    pub fn output(&self, run: &str, identifier: &str) -> Result<Value> {
        let states = self.states(run, identifier)?;
        match states.as_slice() {
            [state] => match state["outputs"].as_array().map(Vec::as_slice) {
                Some([output]) => Ok(output.clone()),
                _ => bail!("{identifier} does not have exactly one output: {state:#}"),
            },
            _ => bail!("{identifier} has {} states, not one", states.len()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the path of a state, by which requests name it.
pub fn path_of(state: &Value) -> Result<&str> {
    state["path"].as_str().context("a state has a path")
}

/// Installs the provider of TLS that reqwest needs for any client, once in a process.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Returns a client that sends a key with each request, unless the key is empty.
pub fn client(key: &str, timeout: Duration) -> Result<Client> {
    Ok(client_builder(key, timeout)?.build()?)
}

/// Returns the builder of such a client.
pub fn client_builder(key: &str, timeout: Duration) -> Result<ClientBuilder> {
    install_provider();
    let mut headers = HeaderMap::new();
    if !key.is_empty() {
        headers.insert(AUTHORIZATION, format!("Bearer {key}").parse()?);
    }
    Ok(Client::builder().timeout(timeout).default_headers(headers))
}

/// The admin keys of the databases on Postgres, by name: the host that was first on one has it in
/// its folder, and others have none.
static SHARED_KEYS: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());

/// Returns the admin key for a host that has started.
fn admin_key(data: &Path, arguments: &[&str]) -> Result<String> {
    let file = data.join("admin.key");
    let own = file.exists().then(|| std::fs::read_to_string(&file)).transpose()?;
    let own = own.map(|key| key.trim().to_owned());
    let database = arguments.iter().skip_while(|argument| **argument != "--database").nth(1);
    let name = database.and_then(|url| url.rsplit('/').next());
    let Some(name) = name else { return Ok(own.unwrap_or_default()) };
    let mut keys = SHARED_KEYS.lock();
    if let Some(key) = own {
        keys.insert(name.to_owned(), key);
    }
    Ok(keys.get(name).cloned().unwrap_or_default())
}

/// Returns the first line that a new host prints, or an empty text if it prints none.
fn first_line(from: ChildStdout) -> String {
    let (sender, line) = mpsc::channel();
    // The thread ends at the latest with the host, whose end closes the pipe.
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(from).read_line(&mut line);
        let _ = sender.send(line);
    });
    line.recv_timeout(MAX_WAIT).unwrap_or_default()
}
