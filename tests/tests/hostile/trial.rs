//! Trials: hostile attempts at the host's own work, in steps on a host of their own, with honest
//! runs of another namespace beside them. The steps are data in a `case.json`. The honest runs,
//! `/health`, memory, cancel and SIGTERM must stay within their bounds throughout.
//!
//! Not here: the meaning of the recipes in the steps (`exosphere_tests::expand`).

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use exosphere_tests::expand::expand;
use exosphere_tests::honest_traffic::{self, Bounds, HonestTraffic};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, path_of, problem, until};
use reqwest::blocking::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::case::{Answer, Case};
use crate::harness;
use crate::report::Row;

/// The namespace of the attack, which `Host::request` uses.
const NAMESPACE: &str = "default";

/// Bound from SIGTERM to the end of a host that executes nothing.
const SIGTERM_MAX: Duration = Duration::from_secs(5);

/// Timeout of an attacker's request, after which the host counts as blocked.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum bytes of an answer to the attack: more would take much of the host's memory.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The contents of a trial: bounds, host settings and steps.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Maximum memory of the host (RSS) in megabytes, at any time.
    memory_mb: u64,
    /// Plugins of this project that the attack needs.
    #[serde(default)]
    plugins: Vec<String>,
    /// Further arguments of `serve`.
    #[serde(default)]
    arguments: Vec<String>,
    /// Maximum number of files that the host may open.
    open_files: Option<u32>,
    /// True if the host's standard error has no reader, and much is logged.
    #[serde(default)]
    closed_stderr: bool,
    /// The reason why the time bounds are not met yet, if so. It is printed each time, and
    /// honest runs must still succeed.
    unmet: Option<String>,
    steps: Vec<Step>,
}

/// The p99 of honest runs in a trial whose goal is not met: slower, and still served.
const UNMET_HONEST: Duration = Duration::from_secs(5);
const UNMET_HEALTH: Duration = Duration::from_secs(1);

/// A step of a trial.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
enum Step {
    /// Uploads the guest of the case under each of several names.
    Upload(Upload),
    /// Sends requests, and checks each answer.
    Send(Send),
    /// Starts runs and waits for their ends.
    Run(Run),
    /// Starts a run and cancels it, which has to be quick.
    Cancel(Cancel),
    /// Redrives the run of the last step.
    Redrive(Run),
    /// Opens connections that send a text and then nothing, and holds them while other clients must
    /// be served.
    Connect(Connect),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Upload {
    #[serde(default = "default_count")]
    names: usize,
    answer: Answer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    method: String,
    /// The path below the namespace; `@n` is the number of the request, `@run` the last run and
    /// `@state` the first state of that run.
    path: String,
    #[serde(default)]
    body: Value,
    /// The body as it is sent, without recipes.
    text: Option<String>,
    #[serde(default = "default_count")]
    times: usize,
    /// Number of simultaneous requests.
    #[serde(default = "default_count")]
    at_once: usize,
    /// Milliseconds after which the caller hangs up.
    give_up_ms: Option<u64>,
    answer: Answer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run {
    /// A graph that a step has applied; else that of the case's one node.
    graph: Option<String>,
    #[serde(default)]
    inputs: Value,
    #[serde(default = "default_count")]
    times: usize,
    end: End,
}

/// The required end of every run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    status: String,
    /// The possible kinds of the first failure.
    #[serde(default)]
    kinds: Vec<String>,
    /// A part of the failure's message.
    #[serde(default)]
    words: String,
    /// Some of the run's counts.
    #[serde(default)]
    counts: serde_json::Map<String, Value>,
    /// The one output of the one state at `attack`.
    output: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cancel {
    graph: Option<String>,
    #[serde(default)]
    inputs: Value,
    /// Milliseconds for which the run continues before the cancel.
    after_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Connect {
    connections: usize,
    /// The text that each connection sends.
    says: String,
    hold_ms: u64,
}

fn default_count() -> usize {
    1
}

/// Runs the trial of a case.
pub fn row(case: &Case, trial: &Trial) -> Result<Row> {
    let mut row = Row::new(&case.name);
    row.answer = "as promised".to_owned();
    let started = Instant::now();
    let folder = tempfile::tempdir()?;
    let mut host = start(&case.name, trial, folder.path())?;
    let uploads = harness::uploads(case, &host)?;
    trial.plugins.iter().try_for_each(|plugin| host.push(plugin).map(drop))?;
    let traffic = HonestTraffic::start(&host)?;
    let attacker = Attacker { host: &host, case, uploads, last: None };
    let attacked = attacker.attack(&trial.steps);
    let report = traffic.finish()?;
    println!("{}: {report}", case.name);
    let bounds = Bounds::memory(trial.memory_mb << 20);
    let unmet = Bounds { honest_p99: UNMET_HONEST, health: UNMET_HEALTH, ..bounds };
    let attacked = attacked.with_context(|| format!("the attack beside: {report}"));
    match (&trial.unmet, attacked.and_then(|()| report.hold(bounds))) {
        (None, held) => held?,
        (Some(_), Ok(())) => {}
        (Some(cause), Err(error)) => {
            println!("{}: NOT MET, {cause}: {error:#}", case.name);
            report.hold(unmet)?;
            row.answer = "not met".to_owned();
        }
    }
    until("the release of all slots", || Ok((host.holding()? == 0).then_some(())))?;
    let (elapsed, status) = honest_traffic::sigterm_time(&mut host)?;
    let max = SIGTERM_MAX.mul_f64(honest_traffic::slack());
    ensure!(status.success() && elapsed < max, "SIGTERM: {status} after {elapsed:.1?}");
    row.times.push(started.elapsed());
    Ok(row)
}

/// Starts the host of a trial, on SQLite or, with `EXOSPHERE_TEST_DATABASE=postgres`, on a database
/// of its own in Postgres.
fn start(name: &str, trial: &Trial, data: &std::path::Path) -> Result<Host> {
    let mut arguments: Vec<&str> = trial.arguments.iter().map(String::as_str).collect();
    let url = match std::env::var("EXOSPHERE_TEST_DATABASE").as_deref() {
        Ok("postgres") => Some(Postgres::shared()?.create_database(&name.replace('-', "_"))?),
        Ok("sqlite") | Err(_) => None,
        Ok(other) => bail!("EXOSPHERE_TEST_DATABASE is {other}, not sqlite or postgres"),
    };
    arguments.extend(url.iter().flat_map(|url| ["--database", url]));
    let reader = trial.closed_stderr.then(std::io::pipe).transpose()?;
    let host = Host::start_with(data, &arguments, |command| {
        if let Some(max) = trial.open_files {
            limit_open_files(command, max);
        }
        if let Some((_, writer)) = &reader {
            let writer = writer.try_clone().map_or_else(|_| Stdio::null(), Stdio::from);
            command.env("EXOSPHERE_LOG", "debug").stderr(writer);
        }
    });
    // The pipe has no reader any more.
    drop(reader);
    host
}

/// Runs the program through a shell that lowers its limit of open files, the hard limit
/// included.
fn limit_open_files(command: &mut Command, max: u32) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {max} && exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    shell.env("EXOSPHERE_LOG", "warn").stdout(Stdio::piped());
    *command = shell;
}

/// The attacker, which performs the steps.
struct Attacker<'a> {
    host: &'a Host,
    case: &'a Case,
    uploads: Vec<Vec<u8>>,
    last: Option<String>,
}

impl Attacker<'_> {
    fn attack(mut self, steps: &[Step]) -> Result<()> {
        for (number, step) in steps.iter().enumerate() {
            self.step(step).with_context(|| format!("step {}", number + 1))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Upload(upload) => self.upload(upload),
            Step::Send(send) => self.send(send),
            Step::Run(run) => self.run(run),
            Step::Cancel(cancel) => self.cancel(cancel),
            Step::Redrive(run) => {
                let last = self.last.clone().context("no run to redrive")?;
                self.host.send("POST", &format!("/runs/{last}/redrive"), &json!({}))?;
                self.ends(&last, &run.end)
            }
            Step::Connect(connect) => self.connect(connect),
        }
    }

    fn upload(&self, upload: &Upload) -> Result<()> {
        let bytes = self.uploads.first().context("the case has no guest")?;
        for number in 0..upload.names {
            let name = match number {
                0 => self.case.name.clone(),
                _ => format!("{}-{number}", self.case.name),
            };
            let response = self.host.upload(&name, bytes.clone())?;
            judged(&upload.answer, response)?;
        }
        if let Some(grants) = &self.case.file.grants {
            self.host.grant(self.case.node().0, grants)?;
        }
        Ok(())
    }

    /// Returns the id of the first state of a run, in the order of paths.
    fn first_state(&self, run: &str) -> Result<String> {
        let path = format!("//v1/namespaces/{NAMESPACE}/runs/{run}/states?limit=1");
        Ok(path_of(&self.host.get(&path)?["states"][0])?.to_owned())
    }

    fn send(&self, send: &Send) -> Result<()> {
        let body = match &send.text {
            Some(text) => text.clone(),
            None => expand(&send.body)?.to_string(),
        };
        let timeout = send.give_up_ms.map_or(REQUEST_TIMEOUT, Duration::from_millis);
        let client = self.host.client(timeout)?;
        let last = self.last.as_deref().unwrap_or_default();
        let first_state =
            if send.path.contains("@state") { self.first_state(last)? } else { String::new() };
        let send_one = |number: usize| {
            let path = send.path.replace("@n", &number.to_string()).replace("@run", last);
            let path = path.replace("@state", &first_state);
            let url = format!("{}/v1/namespaces/{NAMESPACE}{path}", self.host.url());
            let request = client.request(send.method.parse()?, url);
            let request = request.header("content-type", "application/json");
            match request.body(body.clone()).send() {
                // The timeout was intended.
                Err(error) if send.give_up_ms.is_some() && error.is_timeout() => Ok(()),
                response => judged(&send.answer, response?),
            }
        };
        let numbers: Vec<usize> = (0..send.times).collect();
        for some in numbers.chunks(send.at_once.max(1)) {
            std::thread::scope(|scope| {
                let sent: Vec<_> =
                    some.iter().map(|number| scope.spawn(|| send_one(*number))).collect();
                sent.into_iter()
                    .try_for_each(|sent| sent.join().map_err(|_| anyhow!("a request panicked"))?)
            })?;
        }
        Ok(())
    }

    /// Returns the name of a step's graph: the named one, or the case's own, which is applied
    /// first.
    fn graph(&self, named: Option<&String>) -> Result<String> {
        match named {
            Some(name) => Ok(name.clone()),
            None => {
                self.host.apply(&self.case.name, &expand(&self.case.graph())?)?;
                Ok(self.case.name.clone())
            }
        }
    }

    fn begin(&self, graph: &str, inputs: &Value) -> Result<String> {
        let inputs = if inputs.is_null() { json!({}) } else { expand(inputs)? };
        self.host.run(graph, &inputs, &json!({}))
    }

    fn run(&mut self, run: &Run) -> Result<()> {
        let graph = self.graph(run.graph.as_ref())?;
        let begin = |_| self.begin(&graph, &run.inputs);
        let runs: Vec<String> = (0..run.times).map(begin).collect::<Result<_>>()?;
        runs.iter().try_for_each(|id| self.ends(id, &run.end))?;
        self.last = runs.last().cloned();
        Ok(())
    }

    fn ends(&self, run: &str, end: &End) -> Result<()> {
        let found = self.host.wait_for(run)?;
        ensure!(found["status"] == end.status, "the run is {}: {found:#}", found["status"]);
        let failure = &found["failures"][0]["failure"];
        let kind = failure["kind"].as_str().unwrap_or_default();
        let kinds = &end.kinds;
        ensure!(kinds.is_empty() || kinds.iter().any(|one| one == kind), "{kind}: {failure:#}");
        let message = failure["message"].as_str().unwrap_or_default();
        ensure!(message.contains(&end.words), "the message has no {:?}: {failure:#}", end.words);
        for (name, count) in &end.counts {
            ensure!(&found["counts"][name] == count, "{name} is not {count}: {found:#}");
        }
        if let Some(output) = &end.output {
            let found = self.host.output(run, "attack")?;
            ensure!(&found == output, "the output is {found}");
        }
        Ok(())
    }

    fn cancel(&mut self, cancel: &Cancel) -> Result<()> {
        let graph = self.graph(cancel.graph.as_ref())?;
        let run = self.begin(&graph, &cancel.inputs)?;
        std::thread::sleep(Duration::from_millis(cancel.after_ms));
        let tenant = Tenant { host: self.host, name: NAMESPACE };
        let cancelled = honest_traffic::cancel_time(&tenant, &run)?;
        cancelled.hold()?;
        self.last = Some(run);
        Ok(())
    }

    fn connect(&self, connect: &Connect) -> Result<()> {
        let address = self.host.url().trim_start_matches("http://");
        let mut held = Vec::new();
        for _ in 0..connect.connections {
            // A host that is full may refuse a connection or close it immediately.
            let Ok(mut stream) = TcpStream::connect(address) else { continue };
            let _ = stream.write_all(connect.says.as_bytes());
            held.push(stream);
        }
        let end = Instant::now() + Duration::from_millis(connect.hold_ms);
        while Instant::now() < end {
            self.check_new_client()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Checks that a new client on a new connection is served.
    fn check_new_client(&self) -> Result<()> {
        let started = Instant::now();
        let client = Client::builder().timeout(REQUEST_TIMEOUT).build()?;
        let status = client.get(format!("{}/health", self.host.url())).send()?.status();
        let elapsed = started.elapsed();
        let max = Duration::from_secs(1).mul_f64(honest_traffic::slack());
        ensure!(status.is_success() && elapsed < max, "a new client: {status} after {elapsed:.1?}");
        Ok(())
    }
}

fn judged(answer: &Answer, response: reqwest::blocking::Response) -> Result<()> {
    let status = response.status();
    if status.is_success() {
        // The answer is compared as text, because a JSON reader would hide its form.
        let text = response.text()?;
        ensure!(text.len() <= MAX_ANSWER_BYTES, "an answer of {} bytes", text.len());
        ensure!(
            text.contains(&answer.words),
            "the answer has no {:?}: {}",
            answer.words,
            harness::cut(&text)
        );
        return harness::judge_answer(answer, status.as_u16(), &json!({})).map(drop);
    }
    let (status, found) = problem(response)?;
    harness::judge_answer(answer, status, &found).map(drop)
}
