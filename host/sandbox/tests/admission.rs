//! The checks of an upload, and the refusal of an upload that fails one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use exosphere_domain::ids::Digest;
use exosphere_domain::reason::Reason;
use exosphere_sandbox::AdmissionError;
use support::*;

async fn refusal(bench: &Bench, bytes: &[u8]) -> AdmissionError {
    bench.sandbox.admit(bytes).await.unwrap_err()
}

#[tokio::test]
async fn an_admitted_plugin_returns_its_description() {
    let bench = Bench::new();
    let bytes = guest("log", &one_output("{}"));
    let admitted = bench.sandbox.admit(&bytes).await.unwrap();
    assert_eq!(admitted.digest, Digest::from_content(&bytes));
    assert_eq!(admitted.description, r#"{"nodes":[]}"#);
    assert_eq!(admitted.imports, ["exosphere:node/log@0.1.0"]);
    // The same bytes are admitted again without a compilation.
    let readmitted = bench.sandbox.admit(&bytes).await.unwrap();
    assert_eq!(readmitted.description, admitted.description);
}

#[tokio::test]
async fn a_wrong_file_format_is_named() {
    let bench = Bench::new();
    assert_eq!(refusal(&bench, b"").await, AdmissionError::Empty);
    let module = wat::parse_str("(module)").unwrap();
    for (bytes, words) in [
        (module.as_slice(), "a core module"),
        (b"(component)", "WebAssembly text"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0", "ELF"),
        (b"{\"a\": 1}", "text"),
        (b"\0as", "the first few bytes"),
        (b"\0asm\x0d\0", "the first few bytes"),
        (b"\0asm\xff\0\x01\0", "unknown version"),
        (b"\x89PNG\r\n\x1a\n\xff", "something else"),
    ] {
        let message = refusal(&bench, bytes).await.to_string();
        assert!(message.contains(words) && message.contains("wasm32-wasip2"), "{words}: {message}");
    }
}

#[tokio::test]
async fn a_different_wit_world_is_rejected() {
    let bench = Bench::new();
    let empty = wat::parse_str("(component)").unwrap();
    let message = refusal(&bench, &empty).await.to_string();
    assert!(message.contains("exosphere:node/guest@0.1.0"), "{message}");

    let unknown =
        wat::parse_str(r#"(component (import "acme:bank/vault@1.0.0" (instance)))"#).unwrap();
    let unknown_function = wat::parse_str(
        r#"(component (import "acme:bank/vault@1.0.0" (instance (export "open" (func)))))"#,
    )
    .unwrap();
    for bytes in [unknown_function] {
        let refused = refusal(&bench, &bytes).await;
        assert!(matches!(refused, AdmissionError::Imports { .. }), "{refused}");
        assert!(refused.to_string().contains("acme:bank/vault@1.0.0"), "{refused}");
    }
    // An import of an empty instance imports nothing, but the component still is not a
    // plugin.
    assert!(matches!(
        refusal(&bench, &unknown).await,
        AdmissionError::Exports { .. } | AdmissionError::Imports { .. }
    ));

    let invalid_text = text("", &one_output("{}"))
        .replace("(case \"requeue-after\" u64)", "(case \"requeue-after\" u32)");
    let refused = refusal(&bench, &wat::parse_str(invalid_text).unwrap()).await;
    assert!(matches!(refused, AdmissionError::Exports { .. }), "{refused}");
    assert!(refused.to_string().contains("requeue-after: expected `u64` found `u32`"), "{refused}");

    let invalid_text = text("log", &one_output("{}")).replace(r#" "error"))"#, r#" "fatal"))"#);
    let refused = refusal(&bench, &wat::parse_str(invalid_text).unwrap()).await;
    assert!(matches!(refused, AdmissionError::Imports { .. }), "{refused}");
    assert!(refused.to_string().contains("exosphere:node/log@0.1.0"), "{refused}");
}

#[tokio::test]
async fn disabled_proposals_are_rejected() {
    let bench = Bench::new();
    for (proposal, functions) in [
        ("memory64", "(memory $big i64 1)"),
        ("tail-call", "(func $t (param i32) (result i32) (return_call $t (local.get 0)))"),
        ("threads", "(memory $s 1 2 shared)"),
        (
            "relaxed-simd",
            "(func $v (param v128 v128 v128) (result v128)
               (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))",
        ),
        (
            "function-references",
            "(type $f (func)) (func $r (param (ref $f)) (call_ref $f (local.get 0)))",
        ),
        ("exceptions", "(tag $e) (func (throw $e))"),
        (
            "wide-arithmetic",
            "(func (param i64) (i64.mul_wide_s (local.get 0) (local.get 0)) drop drop)",
        ),
        ("gc-types", "(func (param externref))"),
        ("gc", "(type $s (struct)) (func (drop (struct.new $s)))"),
    ] {
        let refused =
            refusal(&bench, &guest("", &format!("{functions} {}", one_output("{}")))).await;
        let AdmissionError::Proposal { proposal: named, .. } = &refused else {
            panic!("{proposal}: {refused}");
        };
        assert_eq!(named, proposal, "{refused}");
        assert_eq!(refused.reason(), Some(Reason::DisabledProposal));
    }
    let bytes = wat::parse_str("(component (type (future u8)))").unwrap();
    let refused = refusal(&bench, &bytes).await;
    assert!(matches!(refused, AdmissionError::Proposal { .. }), "{refused}");
}

#[tokio::test]
async fn too_many_parts_are_rejected() {
    let bench = Bench::new();
    let component =
        |part: &str, n: usize| guest("", &format!("{} {}", part.repeat(n), one_output("{}")));
    let message = refusal(&bench, &component("(memory 1)", 100)).await.to_string();
    assert!(message.contains("memories"), "{message}");
    let message = refusal(&bench, &component("(table 1 funcref)", 100)).await.to_string();
    assert!(message.contains("tables"), "{message}");
    let nested = text("", &one_output("{}")).replace(
        "(core instance $libc (instantiate $libc))",
        &format!(
            "(core module $e) {} (core instance $libc (instantiate $libc))",
            "(core instance (instantiate $e))".repeat(1000)
        ),
    );
    let message = refusal(&bench, &wat::parse_str(nested).unwrap()).await.to_string();
    assert!(message.contains("instance"), "{message}");
    bench.assert_healthy(4).await;
}

#[tokio::test]
async fn a_failing_describe_is_rejected() {
    let bench = Bench::new();
    for (body, words) in [
        ("unreachable", "trap"),
        ("(loop $l (br $l)) unreachable", "`cpu_ms`"),
        ("(i32.store (i32.const 1204) (i32.const -1)) (i32.const 1200)", "contract"),
    ] {
        let text = text("", &one_output("{}")).replace(
            "(func (export \"describe\") (result i32) (i32.const 1200))",
            &format!("(func (export \"describe\") (result i32) {body})"),
        );
        let bytes = wat::parse_str(text).unwrap();
        let refused = refusal(&bench, &bytes).await;
        assert!(matches!(refused, AdmissionError::Describe(_)), "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert_eq!(files(&bench), 0, "nothing stays of a refused upload");
}

fn files(bench: &Bench) -> usize {
    std::fs::read_dir(bench.folder.path()).unwrap().count()
}

#[tokio::test]
async fn an_unstable_describe_is_refused() {
    let bench = Bench::new();
    // The description is the current time, as letters.
    let text = text("sleep", &one_output("{}")).replace(
        "(func (export \"describe\") (result i32) (i32.const 1200))",
        "(func (export \"describe\") (result i32)
           (i64.store (i32.const 1100) (i64.or
             (i64.and (call $now) (i64.const 0x0f0f0f0f0f0f0f0f)) (i64.const 0x4040404040404040)))
           (i32.const 1200))",
    );
    let refused = refusal(&bench, &wat::parse_str(text).unwrap()).await;
    assert_eq!(refused, AdmissionError::DescribeDiffers);
    assert_eq!(files(&bench), 0, "nothing stays of a refused upload");
}

#[tokio::test]
async fn an_inspected_upload_is_not_kept() {
    let bench = Bench::new();
    let bytes = guest("log", &one_output("{}"));
    let checked = bench.sandbox.inspect_upload("n", &bytes).await.unwrap().admitted;
    assert_eq!(files(&bench), 0, "nothing is in the code cache");
    let admitted = bench.sandbox.admit(&bytes).await.unwrap();
    assert!(admitted.compile.as_micros() > 0, "it was compiled again");
    assert_eq!(files(&bench), 1);
    assert_eq!(
        (checked.digest, checked.description, checked.imports, &checked.summary),
        (admitted.digest, admitted.description, admitted.imports, &admitted.summary)
    );
    assert_eq!(admitted.summary.exports, ["exosphere:node/guest@0.1.0"]);
    assert_eq!(admitted.summary.memory_bytes, 2 * 64 * 1024);
}

/// An upload that is cut anywhere, or has a flipped bit anywhere, is refused or is
/// another plugin. It never causes a panic.
#[tokio::test]
async fn damaged_components_cause_no_panic() {
    let bench = Bench::new();
    let bytes = guest("log", &one_output("{}"));
    for len in (0..bytes.len()).step_by(7) {
        let refused = refusal(&bench, &bytes[..len]).await;
        assert!(!matches!(refused, AdmissionError::Internal { .. }), "cut at {len}: {refused}");
    }
    for at in (0..bytes.len() * 8).step_by(13) {
        let mut bytes = bytes.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Err(refused) = bench.sandbox.admit(&bytes).await {
            assert!(!matches!(refused, AdmissionError::Internal { .. }), "bit {at}: {refused}");
        }
    }
    bench.assert_healthy(4).await;
}
