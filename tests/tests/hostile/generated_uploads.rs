//! Generated uploads: large, numerous or damaged bytes, built when a case needs them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use exosphere_tests::component;
use exosphere_tests::guest::{self, Changes};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum GeneratedUpload {
    /// An empty file.
    Nothing,
    /// A file with this text.
    Text(String),
    /// A file of this many bytes that begins like a component.
    Zeros(usize),
    /// The test's own program.
    Elf,
    /// Code that the host itself has compiled, without its authentication code.
    Precompiled,
    /// A plugin of this project, cut at twenty places.
    Truncated(String),
    /// A plugin of this project with one flipped bit, at twenty places.
    Flipped(String),
    /// A function of this many empty loops.
    Loops(usize),
    /// A function of this many variables, all of which are needed to its end.
    Locals(usize),
    /// A function that is one expression of this many terms.
    Expression(usize),
    /// A module of this many functions, each of maximal size and slow to compile.
    SlowFunctions(usize),
    /// A module of this many functions.
    Functions(usize),
    /// A module of this many memories of one page.
    Memories(usize),
    /// A module of this many tables.
    Tables(usize),
    /// A component with this many instances of an empty module.
    Instances(usize),
    /// As many nested components as the number says.
    Nested(usize),
    /// A data segment of this many bytes at the beginning of a memory that has them.
    Data(usize),
    /// A description of one node that has this many characters.
    LongDescription(usize),
    /// A schema of this many levels.
    DeepSchema(usize),
    /// A schema of this many properties.
    WideSchema(usize),
    /// A description of this many nodes.
    Nodes(usize),
}

/// Number of damaged uploads.
const DAMAGED_UPLOADS: usize = 20;

impl GeneratedUpload {
    /// Builds the uploads, at least one.
    pub fn make(&self, host_data: &Path) -> Result<Vec<Vec<u8>>> {
        Ok(match self {
            GeneratedUpload::Truncated(plugin) => {
                let whole = component(plugin)?;
                // The steps are uneven, so that the cuts differ.
                let cut = |n: usize| {
                    whole[..whole.len() * (n * 2 + 1) / (2 * DAMAGED_UPLOADS + 1)].to_vec()
                };
                (0..DAMAGED_UPLOADS).map(cut).collect()
            }
            GeneratedUpload::Flipped(plugin) => {
                let whole = component(plugin)?;
                (0..DAMAGED_UPLOADS).map(|n| flipped(&whole, n)).collect()
            }
            _ => vec![self.single(host_data)?],
        })
    }

    fn single(&self, host_data: &Path) -> Result<Vec<u8>> {
        match self {
            GeneratedUpload::Nothing
            | GeneratedUpload::Truncated(_)
            | GeneratedUpload::Flipped(_) => Ok(Vec::new()),
            GeneratedUpload::Text(text) => Ok(text.clone().into_bytes()),
            GeneratedUpload::Zeros(count) => {
                let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
                bytes.resize(*count, 0);
                Ok(bytes)
            }
            GeneratedUpload::Elf => Ok(std::fs::read(std::env::current_exe()?)?[..4096].to_vec()),
            GeneratedUpload::Precompiled => precompiled(host_data),
            GeneratedUpload::Loops(count) => function(&"(loop)".repeat(*count)),
            GeneratedUpload::Locals(count) => function(&locals(*count)),
            GeneratedUpload::Expression(count) => function(&expression(*count)),
            GeneratedUpload::SlowFunctions(count) => functions(
                &format!("(func {})", "(drop (memory.grow (i32.const 0)))".repeat(24_000))
                    .repeat(*count),
            ),
            GeneratedUpload::Functions(count) => functions(&"(func)".repeat(*count)),
            GeneratedUpload::Memories(count) => functions(&"(memory 1)".repeat(*count)),
            GeneratedUpload::Tables(count) => functions(&"(table 1 funcref)".repeat(*count)),
            GeneratedUpload::Instances(count) => wrap(&format!(
                "(core module $e) {}",
                "(core instance (instantiate $e))".repeat(*count)
            )),
            GeneratedUpload::Nested(depth) => Ok(nested(*depth)),
            GeneratedUpload::Data(count) => functions(&format!(
                "(memory $large {}) (data (memory $large) (i32.const 0) \"{}\")",
                count / 65536 + 1,
                "a".repeat(*count)
            )),
            GeneratedUpload::LongDescription(count) => described(&json!([{
                "name": "attack", "description": "d".repeat(*count),
                "inputs": {"type": "object"}, "outputs": {"type": "object"},
            }])),
            GeneratedUpload::DeepSchema(depth) => described(&json!([{
                "name": "attack", "inputs": deep(*depth), "outputs": {"type": "object"},
            }])),
            GeneratedUpload::WideSchema(count) => described(&json!([{
                "name": "attack", "inputs": wide(*count), "outputs": {"type": "object"},
            }])),
            GeneratedUpload::Nodes(count) => described(&many_nodes(*count)),
        }
    }
}

fn flipped(whole: &[u8], n: usize) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let at = (n * 7919 + 11) % bytes.len();
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << (n % 8);
    }
    bytes
}

/// Encodes bytes by hand, since the text would be nested too deep for its parser.
fn nested(depth: usize) -> Vec<u8> {
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const SECTION_OF_A_COMPONENT: u8 = 4;
    (0..depth).fold(COMPONENT.to_vec(), |inner, _| {
        let mut outer = [COMPONENT, &[SECTION_OF_A_COMPONENT]].concat();
        let mut length = inner.len();
        while length >= 128 {
            outer.push((length % 128) as u8 | 128);
            length /= 128;
        }
        outer.push(length as u8);
        outer.extend(inner);
        outer
    })
}

/// Returns a file of the host's code cache, without the leading authentication code.
fn precompiled(host_data: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(compiled(host_data)?)?;
    let elf = bytes.windows(4).position(|four| four == b"\x7fELF");
    Ok(bytes[elf.context("compiled code is no ELF")?..].to_vec())
}

/// Returns the path of any file of a host's code cache.
pub fn compiled(host_data: &Path) -> Result<PathBuf> {
    let mut folders = vec![host_data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "code") {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("the code cache of the host is empty")
}

fn functions(functions: &str) -> Result<Vec<u8>> {
    guest::component(&Changes { functions, ..Changes::default() })
}

fn function(body: &str) -> Result<Vec<u8>> {
    functions(&format!("(func (export \"bomb\") (param i32) (result i32) {body} (local.get 0))"))
}

fn wrap(component: &str) -> Result<Vec<u8>> {
    guest::component(&Changes { component, ..Changes::default() })
}

fn described(nodes: &Value) -> Result<Vec<u8>> {
    let description = json!({ "nodes": nodes }).to_string();
    guest::component(&Changes { description: Some(description.as_bytes()), ..Changes::default() })
}

fn locals(count: usize) -> String {
    let mut text = format!("(local {})", "i32 ".repeat(count));
    for local in 1..=count {
        text += &format!("(local.set {local} (i32.mul (local.get {}) (i32.const 3)))", local - 1);
    }
    // All are live at the end, so that no two share a register.
    text += &(1..=count).map(|local| format!("(local.get {local})")).collect::<String>();
    text += &"i32.xor ".repeat(count - 1);
    text + "(local.set 0)"
}

fn expression(count: usize) -> String {
    format!("{} {} (local.set 0)", "(local.get 0)".repeat(count), "i32.add ".repeat(count - 1))
}

fn deep(depth: usize) -> Value {
    (0..depth).fold(
        json!({"type": "object"}),
        |inner, _| json!({"type": "object", "properties": {"x": inner}}),
    )
}

fn wide(count: usize) -> Value {
    let properties: serde_json::Map<_, _> =
        (0..count).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    json!({"type": "object", "properties": properties})
}

fn many_nodes(count: usize) -> Value {
    let object = json!({"type": "object"});
    (0..count)
        .map(|n| json!({"name": format!("n{n}"), "inputs": object, "outputs": object}))
        .collect()
}
