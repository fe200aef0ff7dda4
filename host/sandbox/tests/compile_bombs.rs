//! Compile bombs: small uploads that would keep a compiler busy for minutes. Each is
//! refused by the name of its bound, within milliseconds, before anything is compiled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use exosphere_sandbox::AdmissionError;
use support::*;

/// The maximum time of a refusal. It takes milliseconds; a busy machine may need more.
const MAX_REFUSAL_TIME: Duration = Duration::from_secs(3);

fn plugin(functions: &str) -> Vec<u8> {
    guest("", &format!("{functions} {}", one_output("{}")))
}

fn function(signature: &str, body: &str, times: usize) -> Vec<u8> {
    plugin(&format!("(func {signature} {})", body.repeat(times)))
}

fn numbered(times: usize, text: impl Fn(usize) -> String) -> String {
    (1..=times).map(text).collect()
}

/// Encodes a number as unsigned LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number == 0 { low } else { low | 0x80 });
        if number == 0 {
            return bytes;
        }
    }
}

fn section(id: u8, body: &[u8]) -> Vec<u8> {
    [&[id], leb(body.len()).as_slice(), body].concat()
}

/// Builds a component around one core module of these sections. It is made of bytes,
/// since the text format would be too large.
fn raw(sections: &[Vec<u8>]) -> Vec<u8> {
    let module = [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &section(1, &module)].concat()
}

/// Returns the sections of `count` functions without parameters, each with this body.
fn functions(count: usize, body: &[u8]) -> Vec<u8> {
    let code = [&leb(body.len() + 2), b"\0".as_slice(), body, b"\x0b"].concat();
    raw(&[
        section(1, b"\x01\x60\0\0"),
        section(3, &[leb(count), vec![0; count]].concat()),
        section(10, &[leb(count), code.repeat(count)].concat()),
    ])
}

type Bomb = (&'static str, &'static str, Vec<u8>);

/// Returns bombs of one function that is too large, each with its name, the bound that
/// it exceeds, and its bytes.
fn large_functions() -> Vec<Bomb> {
    let nest = |open: &str, times: usize| {
        plugin(&format!("(func {} {})", open.repeat(times), ")".repeat(times)))
    };
    let live = format!(
        "(func (param i32) (local {}) {})",
        "i32 ".repeat(5_000),
        numbered(1_500, |n| format!(
            "(loop (local.set {n} (i32.add (local.get {n}) (i32.const 1))) (br_if 0 (local.get 0)))"
        ))
    );
    let locals = format!("(func (local {}))", "i64 ".repeat(40_000));
    let targets =
        format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(65_000));
    // `i32.const 0`, then `i32.const 7` and `i32.mul` many times, then `drop`.
    let long_body =
        [b"\x41\0".to_vec(), b"\x41\x07\x6c".repeat(1_000_000), b"\x1a".to_vec()].concat();
    vec![
        ("10,000 empty loops", "loops", function("", "(loop)", 10_000)),
        ("blocks in each other", "nesting", nest("(block ", 10_000)),
        ("many live locals", "liveness", plugin(&live)),
        ("very many locals", "locals", plugin(&locals)),
        ("a long expression", "function_bytes", functions(1, &long_body)),
        ("many instructions", "operators", functions(1, &b"\x01".repeat(1_500_000))),
        ("conditions", "branches", function("(param i32)", "(br_if 0 (local.get 0))", 30_000)),
        (
            "calls that may fail",
            "branches",
            function("(param i32)", "(drop (memory.grow (local.get 0)))", 30_000),
        ),
        ("a large branch table", "branch_targets", plugin(&targets)),
    ]
}

/// Returns bombs that have too many of some part.
fn many_parts() -> Vec<Bomb> {
    let core = |text: &str| wat::parse_str(format!("(component {text})")).unwrap();
    let nested = "(component ".repeat(40) + &")".repeat(40);
    let instances = "(core instance (instantiate $m))".repeat(1_000);
    let components = "(instance (instantiate $c))".repeat(900);
    let types = [leb(100_000), b"\x60\0\0".repeat(100_000)].concat();
    let segments = [leb(60_000), b"\x01\0".repeat(60_000)].concat();
    let elements = [b"\x01\x01\0".to_vec(), leb(1_100_000), vec![0; 1_100_000]].concat();
    let data = vec![b'x'; 65 * 1024 * 1024];
    let data = [b"\x01\x01".to_vec(), leb(data.len()), data].concat();
    vec![
        ("300,000 functions", "functions", functions(300_000, b"")),
        ("100 memories", "memories", plugin(&"(memory 1)".repeat(100))),
        ("100 tables", "tables", plugin(&"(table 1 funcref)".repeat(100))),
        ("1,000 modules", "core_modules", core(&"(core module)".repeat(1_000))),
        ("1,000 core instances", "core_instances", core(&format!("(core module $m) {instances}"))),
        ("900 instances", "instances", core(&format!("(component $c) {components}"))),
        ("1,000 components", "components", core(&"(component)".repeat(1_000))),
        ("components in each other", "depth", core(&nested)),
        ("100,000 types", "types", raw(&[section(1, &types)])),
        ("60,000 data segments", "data_segments", raw(&[section(11, &segments)])),
        ("elements of tables", "elements", raw(&[section(9, &elements)])),
        ("a huge data segment", "data_bytes", raw(&[section(11, &data)])),
    ]
}

#[tokio::test]
async fn each_bomb_is_refused_by_its_bound() {
    let bench = Bench::new();
    let mut mismatches = Vec::new();
    for (case, limit, bytes) in large_functions().into_iter().chain(many_parts()) {
        let started = Instant::now();
        let refused = bench.sandbox.admit(&bytes).await.map(|admitted| admitted.compile);
        let elapsed = started.elapsed();
        println!("{case}: {} bytes, {} ms, {refused:?}", bytes.len(), elapsed.as_millis());
        let reached_bound = match &refused {
            Err(AdmissionError::TooMany { bound, .. }) => bound.as_str(),
            _ => "",
        };
        if reached_bound != limit || elapsed > MAX_REFUSAL_TIME {
            mismatches.push(format!("{case}: {refused:?} after {elapsed:?}"));
        }
    }
    assert!(mismatches.is_empty(), "{mismatches:#?}");
    bench.assert_healthy(4).await;
}

/// An interpreter's loop: one function of many instructions, with a label for each of
/// them. Real interpreters are well within the bounds.
#[tokio::test]
async fn a_large_interpreter_is_admitted() {
    const SECTION_COUNT: usize = 300;
    let places = numbered(SECTION_COUNT, |n| {
        format!(
            "(local.set 1 (i32.load offset={n} (local.get 2)))
             (if (i32.eqz (local.get 1)) (then (local.set 3 (i32.add (local.get 3) (i32.const {n})))))
             (local.set 2 (call_indirect (type $op) (local.get 1) (local.get 2) (local.get 3)))
             (br_if $next (i32.lt_u (local.get 2) (local.get 1)))
             (br $next))"
        )
    });
    let text = format!(
        "(type $op (func (param i32 i32) (result i32)))
         (table 10 funcref)
         (func (param i32) (result i32) (local i32 i32 i32 {locals})
           (loop $next {open} (block $first
             (br_table {targets} 0 (i32.load8_u (local.get 2)))) {places})
           (local.get 3))",
        locals = "i64 ".repeat(200),
        open = "(block ".repeat(SECTION_COUNT),
        targets = numbered(SECTION_COUNT, |n| format!("{} ", n - 1)),
    );
    let bench = Bench::new();
    let admitted = bench.sandbox.admit(&plugin(&text)).await.unwrap();
    println!("compiled in {:?}", admitted.compile);
}
