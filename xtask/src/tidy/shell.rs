//! Rule for commands in documents: the shell can parse each block.
//!
//! Not here: running them. They name hosts and files of the reader.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::File;

/// Finds blocks of shell commands that do not parse.
pub fn unparsable(file: &File) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for (line, block) in blocks(&file.text) {
        if let Some(cause) = error(&block)? {
            breaches
                .push(file.breach(line, &format!("the shell cannot parse this block: {cause}")));
        }
    }
    Ok(breaches)
}

/// Returns the blocks that are marked as shell commands, each with the line of its mark.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut is_open) = (Vec::<(usize, String)>::new(), false);
    for (number, line) in text.lines().enumerate() {
        match line.trim() {
            "```sh" if !is_open => {
                is_open = true;
                blocks.push((number, String::new()));
            }
            "```" => is_open = false,
            _ if is_open => {
                if let Some((_, block)) = blocks.last_mut() {
                    block.push_str(line);
                    block.push('\n');
                }
            }
            _ => {}
        }
    }
    blocks
}

/// Returns the message of the shell about a block that it cannot parse.
fn error(block: &str) -> Result<Option<String>> {
    let mut bash = Command::new("bash");
    bash.arg("-n").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = bash.spawn().context("cannot run `bash -n`; is it installed?")?;
    child.stdin.take().context("no pipe")?.write_all(block.as_bytes())?;
    let output = child.wait_with_output()?;
    let message = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    // An unfinished document is only a warning.
    Ok((!output.status.success() || !message.is_empty()).then_some(message))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn broken_shell_blocks_are_found() -> Result<()> {
        let text = "```sh\ncat <<'END'\nx\nEND\nfor i in a; do b; done # [--c]\n```\n\
                    ```json\n(\n```\n  ```sh\n  echo \"a\n  ```\n```sh\ncat <<'END'\n```\n";
        let found = unparsable(&file("a.md", text))?;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("a.md:10:"), "{found:?}");
        Ok(())
    }
}
