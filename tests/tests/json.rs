//! JSON at every endpoint of the real binary: text stays text, for any keys; duplicate keys and
//! numbers that would be rounded are rejected with their paths.

use anyhow::{Context, Result, ensure};
use exosphere_tests::guest::{Changes, component};
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, both_databases, good, path_of, problem};
use serde_json::{Value, json};

/// An object that serde_json's own reader reads as the list `[1,2]`.
const MAGIC: &str = r#"{"$serde_json::private::RawValue":"[1,2]"}"#;

/// An object that serde_json's own reader reads as a number.
const NUMBER: &str = r#"{"$serde_json::private::Number":"7"}"#;

/// Runs a test with the plugin lab on both databases.
fn on_both(name: &str, test: impl Fn(&Host) -> Result<()>) -> Result<()> {
    both_databases::on_both(name, &[], |host| {
        host.push("lab")?;
        test(host)
    })
}

/// Sends a text unchanged, since no JSON value of the test could represent it.
fn send(host: &Host, method: &str, path: &str, body: &str) -> Result<reqwest::blocking::Response> {
    let request = host.request(method, path)?.header("content-type", "application/json");
    Ok(request.body(body.to_owned()).send()?)
}

/// Returns the text of an answer that must be a success.
fn text(host: &Host, path: &str) -> Result<String> {
    let answer = host.request("GET", path)?.send()?;
    ensure!(answer.status().is_success(), "{path}: {}", answer.status());
    Ok(answer.text()?)
}

fn echoes(value: &str) -> String {
    format!(
        r#"{{"nodes":[
        {{"node_name":"echo","identifier":"a","inputs":{{"value":{value}}},"next_nodes":["b"]}},
        {{"node_name":"echo","identifier":"b","inputs":{{"value":"${{{{ a.outputs.value }}}}"}},"next_nodes":["c"]}},
        {{"node_name":"collect","identifier":"c","inputs":{{"values":["${{{{ b.outputs }}}}",{MAGIC}]}},
         "next_nodes":[]}}
        ]}}"#
    )
}

/// Starts a run with a body and waits for its success. Returns its id.
fn run(host: &Host, graph: &str, body: &str) -> Result<String> {
    let started = good(send(host, "POST", &format!("/graphs/{graph}/runs"), body)?)?;
    let run = started["run"].as_str().context("a run has an id")?.to_owned();
    let ended = host.wait_for(&run)?;
    ensure!(ended["status"] == "SUCCESS", "{ended:#}");
    Ok(run)
}

/// Returns the text of the answer for the one state at an identifier.
fn state(host: &Host, run: &str, identifier: &str) -> Result<String> {
    let states = host.list(run, &format!("identifier={identifier}"))?;
    let path = path_of(states.first().context("no state")?)?;
    text(host, &format!("/runs/{run}/states/{path}"))
}

#[test]
fn text_stays_text_through_a_run() -> Result<()> {
    on_both("json_text", |host| {
        for value in [MAGIC, NUMBER] {
            good(send(host, "PUT", "/graphs/g", &echoes(value))?)?;
            let shown = text(host, "/graphs/g")?;
            ensure!(shown.contains(value) && shown.contains(MAGIC), "{shown}");
            for body in ["{}".to_owned(), format!(r#"{{"inputs":{{"value":[{value}]}}}}"#)] {
                let input = if body == "{}" { value.to_owned() } else { format!("[{value}]") };
                let run = run(host, "g", &body)?;
                for identifier in ["a", "b"] {
                    let shown = state(host, &run, identifier)?;
                    let output = format!(r#""outputs":[{{"value":{input}}}]"#);
                    ensure!(shown.contains(&output), "{identifier}: {shown}");
                }
                let shown = state(host, &run, "c")?;
                let output = format!(r#""outputs":[{{"values":[{{"value":{input}}},{MAGIC}]}}]"#);
                ensure!(shown.contains(&output), "{shown}");
            }
        }
        Ok(())
    })
}

#[test]
fn store_keys_and_settings_stay_text() -> Result<()> {
    on_both("json_store", |host| {
        let key = "$serde_json::private::RawValue";
        let graph = json!({
            "nodes": [{"node_name": "echo", "identifier": "a", "inputs": {"value": 1}, "next_nodes": []}],
            "store_config": {"default_values": {key: "[1]"}, "keep": true},
        });
        host.apply("g", &graph)?;
        let run = run(host, "g", "{}")?;
        let shown = text(host, &format!("/runs/{run}"))?;
        ensure!(shown.contains(&format!(r#""store":{{"{key}":"[1]"}}"#)), "{shown}");
        let body = format!(r#"{{"store":{{"{key}":"[2]"}}}}"#);
        let run = self::run(host, "g", &body)?;
        let shown = text(host, &format!("/runs/{run}"))?;
        ensure!(shown.contains(&format!(r#""store":{{"{key}":"[2]"}}"#)), "{shown}");
        let grants = format!(r#"{{"config":{{"{key}":"[1]"}}}}"#);
        let path = "//v1/operator/namespaces/default/grants/lab";
        good(send(host, "PUT", path, &grants)?)?;
        let shown = text(host, path)?;
        ensure!(shown.contains(&grants[1..grants.len() - 1]), "{shown}");
        Ok(())
    })
}

/// Builds a guest that fails with details.
fn failing(details: &str) -> Result<Vec<u8>> {
    let escaped: String = details.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let functions = format!(
        r#"(data (i32.const 4096) "{escaped}")
        (func (export "execute") (param i32 i32 i32 i32) (result i32)
          (i32.store8 (i32.const 128) (i32.const 1))
          (i32.store (i32.const 136) (i32.const 16))
          (i32.store (i32.const 140) (i32.const 2))
          (i32.store8 (i32.const 148) (i32.const 1))
          (i32.store (i32.const 152) (i32.const 4096))
          (i32.store (i32.const 156) (i32.const {}))
          (i32.const 128))"#,
        details.len()
    );
    let description = format!(
        r#"{{"nodes":[{{"name":"fails","inputs":{{"default":{MAGIC}}},"outputs":{{"const":{MAGIC}}}}}]}}"#
    );
    let description = Some(description.as_bytes());
    component(&Changes { functions: &functions, description, ..Changes::default() })
}

#[test]
fn descriptions_and_details_stay_text() -> Result<()> {
    on_both("json_details", |host| {
        good(host.upload("fails", failing(MAGIC)?)?)?;
        let shown = text(host, "/plugins/fails")?;
        ensure!(shown.contains(&format!(r#""inputs":{{"default":{MAGIC}}}"#)), "{shown}");
        ensure!(shown.contains(&format!(r#""outputs":{{"const":{MAGIC}}}"#)), "{shown}");
        let graph = json!({"nodes": [{"node_name": "fails", "identifier": "f", "inputs": {}, "next_nodes": []}]});
        let ended = host.result_of("g", &graph, &json!({}))?;
        let run = ended["run"].as_str().context("no id")?;
        for shown in [text(host, &format!("/runs/{run}"))?, state(host, run, "f")?] {
            ensure!(shown.contains(&format!(r#""details":{MAGIC}"#)), "{shown}");
        }
        Ok(())
    })
}

#[test]
fn the_client_shows_text_as_text() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    good(send(&host, "PUT", "/graphs/g", &echoes("1"))?)?;
    let client = |arguments: &[&str]| -> Result<String> {
        let output = host.command()?.args(arguments).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {stderr}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let input = format!("value={MAGIC}");
    let started = client(&["run", "start", "g", "--input", &input, "--watch", "--json"])?;
    let run = started.split('"').skip_while(|word| *word != "run").nth(2);
    let run = run.context("the output has no run")?;
    let states = host.list(run, "identifier=a")?;
    let path = path_of(states.first().context("no state")?)?;
    let shown = client(&["run", "show", run, path])?;
    ensure!(shown.contains(r#""$serde_json::private::RawValue": "[1,2]""#), "{shown}");
    Ok(())
}

/// Returns a list of objects as JSON text of about `bytes` bytes, which takes about 100 times the
/// memory.
fn heavy(bytes: usize) -> String {
    format!("[{}0]", r#"{\"\":0},"#.repeat(bytes / 9))
}

#[test]
fn json_within_text_takes_no_memory() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    good(send(&host, "PUT", "/graphs/g", &echoes("1"))?)?;
    let peak_memory =
        || Ok::<_, anyhow::Error>(ProcessStats(host.pid()).memory_kb("VmHWM")? / 1024);
    let before = peak_memory()?;
    // A node's output, stored and read again.
    let nested = format!(r#"{{"$serde_json::private::RawValue":"{}"}}"#, heavy(2 << 20));
    run(&host, "g", &format!(r#"{{"inputs":{{"value":{nested}}}}}"#))?;
    let run_took = peak_memory()? - before;
    ensure!(run_took < 200, "a run with 2 MiB of it took {run_took} MB");
    // A start of the maximal size that does not begin yet.
    let nested = format!(r#"{{"$serde_json::private::RawValue":"{}"}}"#, heavy(28 << 20));
    let body = format!(r#"{{"delay_ms":3600000,"inputs":{{"value":{nested}}}}}"#);
    good(send(&host, "POST", "/graphs/g/runs", &body)?)?;
    let start_took = peak_memory()? - before;
    println!("{run_took} MB for a run, {start_took} MB for a start");
    ensure!(start_took < 450, "a start with 28 MiB of it took {start_took} MB");
    Ok(())
}

fn reports(found: &Value, path: &str, message: &str) -> bool {
    let errors = found["errors"].as_array().into_iter().flatten();
    errors.into_iter().any(|error| {
        error["path"] == path && error["message"].as_str().unwrap_or_default().contains(message)
    })
}

#[test]
fn duplicate_keys_are_rejected_everywhere() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    good(send(&host, "PUT", "/graphs/g", &echoes("1"))?)?;
    let nodes = r#"[{"node_name":"echo","identifier":"a","inputs":{"value":1},"next_nodes":[]}]"#;
    let retries = format!(
        r#"{{"nodes":{nodes},"retry_policy":{{"max_retries":1}},"retry_policy":{{"max_retries":9}}}}"#
    );
    let operator = "//v1/operator/namespaces/default";
    let grants = format!("{operator}/grants/lab");
    for (method, path, body, at) in [
        ("POST", "/graphs/g/runs", r#"{"inputs":{"value":1,"value":2}}"#, "$.inputs.value"),
        ("POST", "/graphs/g/runs", r#"{"store":{"a":"1","\u0061":"2"}}"#, "$.store.a"),
        ("POST", "/graphs/g/runs", r#"{"delay_ms":1,"delay_ms":2}"#, "$.delay_ms"),
        ("PUT", "/graphs/h", &retries, "$.retry_policy"),
        ("POST", "/graphs/h/validate", &retries, "$.retry_policy"),
        ("PUT", operator, r#"{"limits":{"cpu_ms":1,"cpu_ms":2}}"#, "$.limits.cpu_ms"),
        ("PUT", &grants, r#"{"config":{"a":"1","a":"2"}}"#, "$.config.a"),
    ] {
        let (status, found) = problem(send(&host, method, path, body)?)?;
        ensure!(status == 422 && reports(&found, at, "comes twice"), "{body}: {found:#}");
    }
    ensure!(host.get("/graphs")?["graphs"].as_array().map(Vec::len) == Some(1), "one was applied");
    ensure!(host.get("/runs")?["runs"] == json!([]), "a run began");
    Ok(())
}

#[test]
fn unrepresentable_numbers_are_rejected() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    good(send(&host, "PUT", "/graphs/g", &echoes("1"))?)?;
    for number in ["18446744073709551616", "1e400", "0.12345678901234567890123"] {
        let body = format!(r#"{{"inputs":{{"value":[{number}]}}}}"#);
        let (status, found) = problem(send(&host, "POST", "/graphs/g/runs", &body)?)?;
        ensure!(status == 422 && reports(&found, "$.inputs.value[0]", "as a string"), "{found:#}");
        let (status, found) = problem(send(&host, "PUT", "/graphs/h", &echoes(number))?)?;
        let at = "$.nodes[0].inputs.value";
        ensure!(status == 422 && reports(&found, at, "as a string"), "{found:#}");
    }
    for exact in ["18446744073709551615", "-9223372036854775808", "0.1", "1e22", "1.5"] {
        let run = run(&host, "g", &format!(r#"{{"inputs":{{"value":{exact}}}}}"#))?;
        let shown = state(&host, &run, "b")?;
        let output = [exact, "1e+22"].map(|exact| format!(r#""outputs":[{{"value":{exact}}}]"#));
        ensure!(output.iter().any(|output| shown.contains(output)), "{exact}: {shown}");
    }
    Ok(())
}

#[test]
fn unknown_start_keys_are_rejected() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    good(send(&host, "PUT", "/graphs/g", &echoes("1"))?)?;
    let body = r#"{"input":{"value":1},"delay_ms":"soon","idempotency_key":7}"#;
    let (status, found) = problem(send(&host, "POST", "/graphs/g/runs", body)?)?;
    ensure!(status == 422 && reports(&found, "$.input", "did you mean \"inputs\"?"), "{found:#}");
    ensure!(reports(&found, "$.delay_ms", "a whole number"), "{found:#}");
    ensure!(reports(&found, "$.idempotency_key", "must be a string"), "{found:#}");
    Ok(())
}
