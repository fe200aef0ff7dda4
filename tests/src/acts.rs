//! Guests made of acts: compiles a list of acts (log a text, log a secret, return outputs, fail)
//! into the functions of a guest. Texts are repeated patterns, so that a line describes
//! megabytes.
//!
//! Not here: the component around the functions (`guest`).

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::guest::{self, Changes};

/// Address of the names of secrets, in memory that the frame leaves free.
const NAMES_AT: usize = 4096;

/// End of the names; after it come the answers of `secrets.get`.
const NAMES_END: usize = 28 * 1024;

/// Address of the host's answer to `secrets.get`: a flag, a pointer, a length.
const SECRET_AT: usize = 30 * 1024;

/// Bytes of one line of a logged secret: the host's maximum for a line.
const LINE_BYTES: usize = 8 * 1024;

const PAGE_BYTES: usize = 64 * 1024;

/// A text: a beginning, a repeated pattern, and an end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Text {
    /// The text before the pattern.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// The repeated pattern.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub again: String,
    /// The number of repetitions of the pattern.
    pub times: usize,
    /// The text after the repetitions.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub after: String,
}

impl Text {
    /// Creates a text without repetitions.
    pub fn plain(text: impl Into<String>) -> Text {
        Text { before: text.into(), ..Text::default() }
    }

    /// Returns the text's length in bytes.
    pub fn len(&self) -> usize {
        self.before.len() + self.again.len() * self.times + self.after.len()
    }

    /// Returns whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the whole text.
    pub fn write_out(&self) -> String {
        [&self.before, &self.again.repeat(self.times), &self.after].map(String::as_str).concat()
    }
}

/// An act of a guest in each execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Act {
    /// Logs a text this many times.
    Log(Text, u32),
    /// Logs a secret this many times, in lines of 8 KiB.
    LogSecret(String, u32),
    /// Returns a text as an output this many times.
    Output(Text, u32),
    /// Fails with this message, to be retried.
    Fail(Text),
}

/// Describes a node of a guest.
pub fn node(name: &str, inputs: &Value, outputs: &Value, secrets: &[&str]) -> Value {
    json!({"name": name, "inputs": inputs, "outputs": outputs, "secrets": secrets})
}

/// Builds the component of a guest whose nodes all perform these acts.
///
/// # Errors
/// If the acts need more than a guest can have.
pub fn component(description: &Value, acts: &[Act]) -> Result<Vec<u8>> {
    let description = description.to_string();
    let functions = functions(acts)?;
    guest::component(&Changes {
        functions: &functions,
        description: Some(description.as_bytes()),
        ..Changes::default()
    })
}

/// Returns the functions of a guest that performs these acts.
///
/// # Errors
/// If the acts need more than a guest can have.
pub fn functions(acts: &[Act]) -> Result<String> {
    let mut code = Code::default();
    code.fetch_secrets(acts)?;
    code.reserve(acts)?;
    for act in acts {
        match act {
            Act::Log(text, times) => code.log(text, *times),
            Act::LogSecret(name, times) => code.log_secret(name, *times),
            Act::Output(text, times) => code.output(text, *times),
            Act::Fail(text) => code.fail(text),
        }
    }
    Ok(code.finish())
}

/// WebAssembly text that grows act by act.
#[derive(Default)]
struct Code {
    data: String,
    locals: String,
    body: String,
    segments: usize,
    /// The number of the local variables of each secret.
    secrets: BTreeMap<String, usize>,
    fails: bool,
}

impl Code {
    /// Fetches the secrets before any memory is used, since the frame's allocator puts them at the
    /// end of the used memory.
    fn fetch_secrets(&mut self, acts: &[Act]) -> Result<()> {
        let mut at = NAMES_AT;
        for act in acts {
            let Act::LogSecret(name, _) = act else { continue };
            if self.secrets.contains_key(name) {
                continue;
            }
            let number = self.secrets.len();
            self.secrets.insert(name.clone(), number);
            let length = name.len();
            self.data += &format!("(data (i32.const {at}) \"{}\")\n", escaped(name));
            self.locals += &format!("(local $secret{number} i32) (local $length{number} i32)\n");
            self.body += &format!(
                "(call $secret (i32.const {at}) (i32.const {length}) (i32.const {SECRET_AT}))
                 (local.set $secret{number} (i32.load offset=4 (i32.const {SECRET_AT})))
                 (local.set $length{number} (i32.load offset=8 (i32.const {SECRET_AT})))\n"
            );
            at += length;
            ensure!(at < NAMES_END, "the names of the secrets are too long");
        }
        Ok(())
    }

    /// Grows the memory by the size of all texts and of the list of outputs.
    fn reserve(&mut self, acts: &[Act]) -> Result<()> {
        let mut bytes = 0;
        let mut outputs = 0;
        for act in acts {
            match act {
                Act::Log(text, _) | Act::Fail(text) => bytes += text.len(),
                Act::Output(text, times) => {
                    bytes += text.len();
                    outputs += *times as usize;
                }
                Act::LogSecret(..) => {}
            }
        }
        let pages = (bytes + outputs * 8).div_ceil(PAGE_BYTES) + 1;
        ensure!(pages < 65_536, "the texts are longer than a memory");
        self.locals += "(local $at i32) (local $start i32) (local $i i32) (local $list i32) \
                        (local $outputs i32) (local $left i32)\n";
        self.body += &format!(
            "(local.set $at (memory.grow (i32.const {pages})))
             (if (i32.eq (local.get $at) (i32.const -1)) (then unreachable))
             (local.set $list (i32.mul (local.get $at) (i32.const {PAGE_BYTES})))
             (local.set $at (i32.add (local.get $list) (i32.const {})))\n",
            outputs * 8
        );
        Ok(())
    }

    /// Writes a text to `$start`, and leaves `$at` at its end.
    fn write(&mut self, text: &Text) {
        self.body += "(local.set $start (local.get $at))\n";
        self.write_repeated(&text.before, 1);
        self.write_repeated(&text.again, text.times);
        self.write_repeated(&text.after, 1);
    }

    fn write_repeated(&mut self, piece: &str, times: usize) {
        if piece.is_empty() || times == 0 {
            return;
        }
        let segment = self.segments;
        self.segments += 1;
        let length = piece.len();
        self.data += &format!("(data $piece{segment} \"{}\")\n", escaped(piece));
        let copy = format!(
            "(memory.init $piece{segment} (local.get $at) (i32.const 0) (i32.const {length}))
             (local.set $at (i32.add (local.get $at) (i32.const {length})))\n"
        );
        self.times(times, &copy);
    }

    fn times(&mut self, times: usize, body: &str) {
        let label = self.body.len();
        self.body += &format!(
            "(local.set $i (i32.const {times}))
             (block $end{label} (loop $again{label}
               (br_if $end{label} (i32.eqz (local.get $i)))
               {body}
               (local.set $i (i32.sub (local.get $i) (i32.const 1)))
               (br $again{label})))\n"
        );
    }

    fn log(&mut self, text: &Text, times: u32) {
        self.write(text);
        let line = "(call $write (i32.const 1) (local.get $start) \
                    (i32.sub (local.get $at) (local.get $start)))";
        self.times(times as usize, line);
    }

    fn log_secret(&mut self, name: &str, times: u32) {
        let number = self.secrets[name];
        let label = self.body.len();
        let lines = format!(
            "(local.set $start (local.get $secret{number}))
             (local.set $left (local.get $length{number}))
             (loop $line{label}
               (call $write (i32.const 1) (local.get $start)
                 (select (local.get $left) (i32.const {LINE_BYTES})
                   (i32.lt_u (local.get $left) (i32.const {LINE_BYTES}))))
               (if (i32.gt_u (local.get $left) (i32.const {LINE_BYTES}))
                 (then
                   (local.set $start (i32.add (local.get $start) (i32.const {LINE_BYTES})))
                   (local.set $left (i32.sub (local.get $left) (i32.const {LINE_BYTES})))
                   (br $line{label}))))"
        );
        self.times(times as usize, &lines);
    }

    fn output(&mut self, text: &Text, times: u32) {
        self.write(text);
        let entry = "(i32.store (i32.add (local.get $list) (i32.shl (local.get $outputs) (i32.const 3)))
               (local.get $start))
             (i32.store offset=4 (i32.add (local.get $list) (i32.shl (local.get $outputs) (i32.const 3)))
               (i32.sub (local.get $at) (local.get $start)))
             (local.set $outputs (i32.add (local.get $outputs) (i32.const 1)))";
        self.times(times as usize, entry);
    }

    fn fail(&mut self, text: &Text) {
        self.write(text);
        self.fails = true;
        self.body += "(i32.store8 (i32.const 128) (i32.const 1))
             (i32.store (i32.const 136) (local.get $start))
             (i32.store (i32.const 140) (i32.sub (local.get $at) (local.get $start)))
             (i32.store8 (i32.const 144) (i32.const 1))
             (i32.store8 (i32.const 148) (i32.const 0))\n";
    }

    fn finish(mut self) -> String {
        if !self.fails {
            self.body += "(i32.store8 (i32.const 128) (i32.const 0))
                 (i32.store8 (i32.const 136) (i32.const 0))
                 (i32.store (i32.const 144) (local.get $list))
                 (i32.store (i32.const 148) (local.get $outputs))\n";
        }
        let Code { data, locals, body, .. } = self;
        format!(
            "{data}(func (export \"execute\") (param i32 i32 i32 i32) (result i32)\n\
             {locals}{body}(i32.const 128))"
        )
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_compiles_to_a_guest() -> Result<()> {
        let text = Text { before: "{".into(), again: "ab".into(), times: 3, after: "}".into() };
        assert_eq!((text.write_out().as_str(), text.len()), ("{ababab}", 8));
        let acts = [
            Act::Log(text.clone(), 2),
            Act::LogSecret("token".into(), 1),
            Act::LogSecret("token".into(), 1),
            Act::Output(text.clone(), 5),
            Act::Fail(text),
        ];
        let object = json!({"type": "object"});
        let description = json!({"nodes": [node("attack", &object, &object, &["token"])]});
        assert!(!component(&description, &acts)?.is_empty());
        assert!(!component(&description, &[])?.is_empty());
        Ok(())
    }
}
