#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::panic, clippy::expect_used)]
mod support;
use std::sync::Arc; use std::time::{Duration, Instant};
use support::*;
fn cpu() -> f64 { let s = std::fs::read_to_string("/proc/self/stat").unwrap(); let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect(); (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0 }
fn rss() -> String { std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmRSS")).unwrap().into() }
#[test]
fn bench() {
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    rt.block_on(async {
        let bench = Arc::new(Bench::with_slots(64));
        let bytes = match std::env::var("WASM") { Ok(p) => std::fs::read(p).unwrap(), Err(_) => returns("{\"a\":1}") };
        let t = Instant::now();
        let admitted = bench.sandbox.admit(&bytes).await.unwrap();
        println!("admit {:?} compile {:?} imports {:?}\n{}", t.elapsed(), admitted.compile, admitted.imports, &admitted.description[..admitted.description.len().min(300)]);
        let node = std::env::var("NODE").unwrap_or("node".into());
        let inputs = std::env::var("INPUTS").unwrap_or("{}".into());
        let plugin = load(&bench.sandbox, admitted.digest, &bytes).await;
        for (node, inputs) in node.split(' ').map(|n| (n, &inputs)) {
            let mut first = invocation(); first.node = node.parse().unwrap(); first.inputs = inputs.clone(); first.timeout = Duration::from_secs(2);
            let mut done = bench.sandbox.invoke(&plugin, first).await; let n = done.logs.len(); done.logs.truncate(3);
            let mut text = format!("{done:#?}"); text.truncate(text.floor_char_boundary(2500));
            println!("### {node} ({n} lines)\n{text}");
        }
        println!("{} pooled {}", rss(), bench.sandbox.is_pooled());
        if std::env::var("ONCE").is_ok() { return; }
        for round in 0..3 {
            let c0 = cpu(); let t0 = Instant::now(); let until = t0 + Duration::from_secs(3);
            let tasks = (0..16).map(|_| { let (b, p, node, inputs) = (bench.clone(), plugin.clone(), node.clone(), inputs.clone()); tokio::spawn(async move { let mut n = 0u64; let mut us = 0u64; while Instant::now() < until { let mut i = invocation(); i.node = node.parse().unwrap(); i.inputs = inputs.clone(); let d = b.sandbox.invoke(&p, i).await; us += d.usage.cpu_us; n += 1; tokio::task::yield_now().await; } (n, us) }) });
            let (mut n, mut us) = (0, 0);
            for t in futures::future::join_all(tasks).await { let (a, b) = t.unwrap(); n += a; us += b; }
            println!("round {round}: {:.0}/s, cpu {:.1} us a call (guest {:.1}), {}", n as f64 / t0.elapsed().as_secs_f64(), (cpu() - c0) * 1e6 / n as f64, us as f64 / n as f64, rss());
        }
        let c0 = cpu(); tokio::time::sleep(Duration::from_secs(10)).await; println!("idle: {:.2} % cpu", (cpu() - c0) * 10.0);
    });
}
