//! `exosphere secrets`: reencrypts the secrets of a database under another key, while
//! hosts may be running on it. Not here: the reencryption.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use exosphere_orchestrator::{Rotated, Sealing, Unopened};
use serde_json::json;

use crate::database::DatabaseArgs;
use crate::error::Error;
use crate::hardening::{KeyArgs, MasterKey};
use crate::output::Output;
use crate::sanitize;

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new key, and bring every secret under it
    #[command(after_help = "\
It works on the database itself, beside running hosts: a host that meets a
secret under the new key reads the key file again. It may be interrupted at any
moment, even by the power: everything can be opened at all times, and the same
command again finishes.

The old keys leave the file at the end. With --keep-old they stay behind the new
one: backups of the database from before can only be opened with them. Keep them
also if the key file is that of another database, too, and rotate there next.

Where hosts have copies of the key file, put a new key in front of the others in
each copy (32 random bytes, then what was there), run `exosphere secrets reseal`
with one of them, and then take the old keys out of all. Where the key comes from
EXOSPHERE_MASTER_KEY, do the same with the variable, and restart the hosts.

Exit codes: 0 if everything is under the new key, 1 if something is not.")]
    Rotate {
        #[command(flatten)]
        place: Place,
        /// Leave the old keys in the key file, behind the new one
        #[arg(long)]
        keep_old: bool,
    },
    /// Bring every secret under the key that is the current one
    #[command(after_help = "\
The current key is the first one in the key file, or in EXOSPHERE_MASTER_KEY. To
change the latter:

  1. put a new key (`openssl rand -hex 32`) and a comma in front of it, and
     restart every host with that
  2. run this with the same variable
  3. take the old key out, and restart the hosts

Exit codes: 0 if everything is under the current key, 1 if something is not.")]
    Reseal {
        #[command(flatten)]
        place: Place,
        /// Remove the secrets that no key here opens, for when a key is lost
        ///
        /// Their graphs have to be applied again with the secrets set. With the
        /// wrong key file this removes every secret.
        #[arg(long)]
        forget_lost: bool,
    },
}

/// Which database, and where its keys are.
#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    of: DatabaseArgs,
    #[command(flatten)]
    key: KeyArgs,
}

/// Runs the command and prints a report.
pub fn run(command: Command, master_key: Option<MasterKey>, output: Output) -> Result<(), Error> {
    let sealing = |place: Place| {
        let keys = place.key.keys(master_key)?;
        Ok::<_, Error>(Sealing { data: place.of.data, database: place.of.database, keys })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = match command {
        Command::Rotate { place, keep_old } => runtime.block_on(sealing(place)?.rotate(keep_old)),
        Command::Reseal { place, forget_lost } => {
            let unopened = if forget_lost { Unopened::Forget } else { Unopened::Keep };
            runtime.block_on(sealing(place)?.reseal(unopened))
        }
    };
    let done = done.map_err(|error| Error::Failed(error.to_string()))?;
    let Rotated { key, secrets, forgotten, went_on, has_older } = &done;
    let json = json!({
        "key": key.as_str(), "secrets": secrets, "forgotten": forgotten,
        "went_on": went_on, "has_older": has_older,
    });
    output.report(&json, &in_words(&done))
}

fn in_words(done: &Rotated) -> String {
    let mut text = String::new();
    if done.went_on {
        text.push_str("finished a rotation that was interrupted\n");
    }
    for lost in &done.forgotten {
        let _ = writeln!(text, "gave up: {}", sanitize::line(lost));
    }
    let count = match done.secrets {
        1 => "1 secret".to_owned(),
        count => format!("{count} secrets"),
    };
    let _ = writeln!(text, "everything is sealed under the key {} now ({count} changed)", done.key);
    if done.has_older {
        text.push_str("older keys are left behind it; whoever has them opens old backups\n");
    }
    text
}
