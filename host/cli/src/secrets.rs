//! `exosphere secrets`: reencrypts the secrets of a database under another key, while
//! hosts may be running on it. Not here: the reencryption (`exosphere-orchestrator`).

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use exosphere_domain::plural::counted;
use exosphere_orchestrator::{KeyRotation, LostSecrets, Rotated};
use serde::Serialize;

use crate::database::DatabaseArgs;
use crate::error::Error;
use crate::hardening::{KeyArgs, MasterKey};
use crate::output::Output;
use crate::sanitize;

/// The commands on secrets.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate a new key, and reencrypt every secret under it
    #[command(after_help = "\
The command works on the database itself, while hosts may be running: a host
that reads a secret under the new key reads the key file again. The command may
be interrupted at any moment, also by a power loss: every secret stays readable,
and the same command again completes the rotation.

At the end the old keys are removed from the file. With --keep-old they stay
after the new one: only they decrypt older backups of the database. Keep them,
too, if another database uses the same key file, and rotate there next.

If hosts have copies of the key file, put a new key in front of the others in
each copy (32 random bytes, then the old content), run `exosphere secrets reseal`
with one of the copies, and then remove the old keys from all. If the keys come
from EXOSPHERE_MASTER_KEY, change the variable in the same way, and restart the
hosts.

Exit codes: 0 if every secret is under the new key, 1 if one is not.")]
    Rotate {
        #[command(flatten)]
        target: Target,
        /// Keep the old keys in the key file, after the new one
        #[arg(long)]
        keep_old: bool,
    },
    /// Reencrypt every secret under the current key
    #[command(after_help = "\
The current key is the first one in the key file, or in EXOSPHERE_MASTER_KEY. To
change the latter:

  1. put a new key (`openssl rand -hex 32`) and a comma in front of the old ones,
     and restart every host with the new value
  2. run this command with the same value
  3. remove the old keys from the variable, and restart the hosts

Exit codes: 0 if every secret is under the current key, 1 if one is not.")]
    Reseal {
        #[command(flatten)]
        target: Target,
        /// Delete the secrets that no key here decrypts, after the loss of a key
        ///
        /// Their graphs must be applied again with the secrets set. With the wrong
        /// key file, this deletes every secret.
        #[arg(long)]
        forget_lost: bool,
    },
}

/// A database, and the source of its keys.
#[derive(Debug, Args)]
pub struct Target {
    #[command(flatten)]
    of: DatabaseArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs the command and prints a report.
pub fn run(command: Command, master_key: Option<MasterKey>, output: Output) -> Result<(), Error> {
    let rotation = |target: Target| {
        let keys = target.key.keys(master_key)?;
        Ok::<_, Error>(KeyRotation { data: target.of.data, database: target.of.database, keys })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = match command {
        Command::Rotate { target, keep_old } => {
            runtime.block_on(rotation(target)?.rotate(keep_old))
        }
        Command::Reseal { target, forget_lost } => {
            let lost_secrets = if forget_lost { LostSecrets::Delete } else { LostSecrets::Keep };
            runtime.block_on(rotation(target)?.reencrypt(lost_secrets))
        }
    };
    let done = done.map_err(|error| Error::Failed(error.to_string()))?;
    let Rotated { key, secrets, forgotten, resumed, has_older } = &done;
    let report = RotationReport {
        key: key.as_str(),
        secrets: *secrets,
        forgotten,
        resumed: *resumed,
        has_older: *has_older,
    };
    output.report(&report, &summary_text(&done))
}

/// The report of a rotation, as `--json` prints it.
#[derive(Debug, Serialize)]
struct RotationReport<'a> {
    /// The id of the current key.
    key: &'a str,
    /// The number of secrets that were reencrypted.
    secrets: u64,
    /// The secrets that were deleted, because no key decrypts them.
    forgotten: &'a [String],
    /// Set if an interrupted rotation was completed.
    resumed: bool,
    /// Set if older keys are left beside the current one.
    has_older: bool,
}

fn summary_text(done: &Rotated) -> String {
    let mut text = String::new();
    if done.resumed {
        text.push_str("completed an interrupted rotation\n");
    }
    for lost in &done.forgotten {
        let _ = writeln!(text, "deleted: {}", sanitize::line(lost));
    }
    let count = counted(done.secrets, "secret", "secrets");
    let _ = writeln!(
        text,
        "every secret is encrypted under the key {} now ({count} reencrypted)",
        done.key
    );
    if done.has_older {
        text.push_str("older keys are left in the keyring; they decrypt older backups\n");
    }
    text
}
