//! Keys: for each operation, what each role may do, what a key of another namespace may do, and what
//! a key that may see no payloads is shown.

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use serde_json::{Value, json};

use crate::document::{Document, Operation, ROLES};
use crate::happy::{PAYLOAD, World, requests};
use crate::sent::{Answer, Sent};

/// Sends the happy requests of an operation with a key.
fn sent_with(key: &str, operation: &Operation, world: &World<'_>) -> Result<Vec<(u16, Answer)>> {
    let requests = requests(&operation.id, world)?;
    let sent = requests.into_iter().map(|(status, sent): (u16, Sent)| {
        let answer = sent.key(key).answer(world.host);
        Ok((status, answer.with_context(|| operation.id.clone())?))
    });
    sent.collect()
}

#[test]
fn every_operation_needs_its_role() -> Result<()> {
    let host = Host::start()?;
    let (document, world) = (Document::of(&host)?, World::of(&host)?);
    let keys = ROLES.iter().map(|role| host.new_key(&json!({"label": role, "role": role})));
    let keys = keys.collect::<Result<Vec<_>>>()?;
    for operation in document.operations()? {
        let id = &operation.id;
        if operation.role == "public" {
            for (status, answer) in sent_with("", &operation, &world)? {
                ensure!(answer.status == status, "{id} without a key: {answer:?}");
            }
            continue;
        }
        let least = ROLES.iter().position(|role| *role == operation.role);
        let least = least.with_context(|| format!("{id} has the role {}", operation.role))?;
        for (role, key) in ROLES.iter().zip(&keys).take(least) {
            for (_, answer) in sent_with(key, &operation, &world)? {
                ensure!(answer.status == 403, "{id} as {role}: {answer:?}");
                ensure!(answer.json()?["type"] == "/problems/forbidden", "{id}: {answer:?}");
                document.check(&operation, &answer)?;
            }
        }
        let role = &operation.role;
        for (status, answer) in sent_with(&keys[least], &operation, &world)? {
            ensure!(answer.status == status, "{id} as {role}: {answer:?}");
        }
    }
    Ok(())
}

#[test]
fn other_namespaces_do_not_exist() -> Result<()> {
    let host = Host::start()?;
    let (document, world) = (Document::of(&host)?, World::of(&host)?);
    let other = json!({"label": "other", "role": "admin", "namespaces": ["elsewhere"]});
    let key = host.new_key(&other)?;
    for operation in document.operations()?.iter().filter(|it| it.role != "public") {
        let is_in_namespace = operation.path.contains("{namespace}");
        let kind = if is_in_namespace { "not-found" } else { "forbidden" };
        for (_, answer) in sent_with(&key, operation, &world)? {
            let found: Value = answer.json()?;
            let id = &operation.id;
            ensure!(found["type"] == format!("/problems/{kind}"), "{id}: {found:#}");
            document.check(operation, &answer)?;
        }
    }
    Ok(())
}

#[test]
fn payloads_are_shown_only_where_documented() -> Result<()> {
    let host = Host::start()?;
    let (document, world) = (Document::of(&host)?, World::of(&host)?);
    let key = |payloads: bool| {
        host.new_key(&json!({"label": "p", "role": "admin", "payloads": payloads}))
    };
    let (blind, seeing) = (key(false)?, key(true)?);
    let mut shown = Vec::new();
    for operation in document.operations()? {
        let id = &operation.id;
        for (status, answer) in sent_with(&blind, &operation, &world)? {
            ensure!(answer.status == status, "{id}: {answer:?}");
            ensure!(!answer.text.contains(PAYLOAD), "{id} shows a payload: {}", answer.text);
            let has_list = answer.text.starts_with("{\"withheld\":[");
            ensure!(has_list == operation.shows_payloads, "{id}: {}", answer.text);
            document.check(&operation, &answer)?;
        }
        for (_, answer) in sent_with(&seeing, &operation, &world)? {
            if answer.text.contains(PAYLOAD) {
                ensure!(operation.shows_payloads, "{id} is not documented to show payloads");
                shown.push(id.clone());
            }
        }
    }
    // The payload is where each of these should find it.
    for id in ["showRunInputs", "showRunResult", "showState", "showStateInputs"] {
        ensure!(shown.iter().any(|shown| shown == id), "{id} does not show the payload: {shown:?}");
    }
    Ok(())
}
