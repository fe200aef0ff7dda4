//! The command line: its arguments and their help.
//!
//! Not here: the commands themselves. Each has a file of its own.

use clap::{Parser, Subcommand};
use exosphere_domain::ids::Name;
use std::path::PathBuf;

use crate::check::Check;
use crate::commands::{
    audit, bulk, grant, graph, host, key, namespace, plugin, quota, run, secret,
};
use crate::secrets;
use crate::serve::Serve;

const AFTER_HELP: &str = "\
Examples:
  exosphere serve --data ./data                  run a host in this folder
  exosphere plugin push hello.wasm               upload nodes
  exosphere graph apply greet.json               wire them
  exosphere run start greet --input name=Ada --watch

Exit codes:
  0  success                     4  the run ended FAILED (watch)
  1  failed or refused           5  the run ended CANCELLED (watch)
  2  invalid command line        6  internal error of the host
  3  no answer from the host     7  host stopping or full: try again
                                 8  its database is away: try again
                               130  interrupted; a watched run continues

With --json, standard output carries the JSON of the host's API and nothing
else; a refusal is its problem document. Messages for people go to standard
error.";

/// Run durable workflows whose steps are sandboxed WebAssembly components.
#[derive(Debug, Parser)]
#[command(name = "exosphere", version, after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Arguments of every command of the client.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// The host to connect to: HOST:PORT or a URL
    #[arg(
        long,
        global = true,
        env = "EXOSPHERE_HOST",
        value_name = "HOST:PORT",
        default_value = "http://127.0.0.1:7070"
    )]
    pub host: String,
    /// The namespace to work in
    #[arg(
        long,
        global = true,
        env = "EXOSPHERE_NAMESPACE",
        value_name = "NAME",
        default_value = "default"
    )]
    pub namespace: Name,
    /// The file with the API key [default: admin.key in the data folder, for a host
    /// on this machine]
    ///
    /// Instead of a file, the variable EXOSPHERE_KEY may hold the key.
    #[arg(long, global = true, env = "EXOSPHERE_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// A file with certificates to trust besides those of the system, as PEM: for a
    /// host with a certificate of its own making
    #[arg(long, global = true, env = "EXOSPHERE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Print the JSON of the host's API instead of tables
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands, one file each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a host
    Serve(Serve),
    /// Verify the invariants of a database, whether a host is running on it or not
    Check(Check),
    /// Print the OpenAPI document of the HTTP API
    ///
    /// A host serves it at `/v1/openapi.json`, and a page made from it at `/docs`.
    Openapi,
    /// Reencrypt the secrets of a database under another key
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Upload, check, show and remove plugins
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Apply, validate, show, roll back, pause and delete graphs
    #[command(subcommand)]
    Graph(graph::Command),
    /// Set, list and remove secrets of graphs
    #[command(subcommand)]
    Secret(secret::Command),
    /// Grant plugins capabilities beyond their sandbox (for operators)
    #[command(subcommand)]
    Grant(grant::Command),
    /// Set limits and slots of namespaces, and pause them (for operators)
    #[command(subcommand)]
    Namespace(namespace::Command),
    /// Create, list and revoke keys of the API (for admins)
    #[command(subcommand)]
    Key(key::Command),
    /// Set quotas of namespaces (for admins)
    #[command(subcommand)]
    Quota(quota::Command),
    /// List the changes that callers made (for admins)
    #[command(subcommand)]
    Audit(audit::Command),
    /// List the hosts of a database (for operators)
    #[command(subcommand)]
    Host(host::Command),
    /// Start, follow, control, retry and delete runs
    #[command(subcommand)]
    Run(run::Command),
    /// Cancel, redrive or delete every run that meets a filter
    #[command(subcommand)]
    Bulk(bulk::Command),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_parses() {
        for line in [
            "exosphere serve",
            "exosphere plugin push a.wasm --name a --version 1.2",
            "exosphere plugin check a.wasm --name a --json",
            "exosphere plugin list --json",
            "exosphere plugin inspect text",
            "exosphere graph apply words.json --name words",
            "exosphere graph validate words.json",
            "exosphere graph list --namespace other",
            "exosphere graph show words --revision 3",
            "exosphere graph revisions words --before 9 --limit 5",
            "exosphere graph diff words 3 4",
            "exosphere graph rollback words 3",
            "exosphere graph delete words --with-runs",
            "exosphere graph pause words --reason why",
            "exosphere graph resume words",
            "exosphere namespace pause --namespace other --reason why",
            "exosphere namespace resume --namespace other",
            "exosphere plugin remove text --unused",
            "exosphere run delete 0195b7f0-0000-7000-8000-000000000001",
            "exosphere run start words --revision 3",
            "exosphere host list",
            "exosphere key create --label ci --role deployer --in shop --in web",
            "exosphere key create --label all --role admin --all-namespaces --payloads --expires-in 30d",
            "exosphere key list --key-file there",
            "exosphere quota show --namespace other",
            "exosphere quota set graphs=2 runs_per_minute=60 --unset plugins",
            "exosphere key revoke 0bCnOza3eFqR",
            "exosphere key revoke exo_0bCnOza3eFqR_2dEpQU5gHsTX8jKvWaBmNyZ2dEpQ1c5g1Y21uZ",
            "exosphere audit list --key 0bCnOza3eFqR --in shop --limit 5 --before 9",
            "exosphere bulk redrive --graph words --since 24h --dry-run",
            "exosphere bulk cancel --label team=a --yes --watch --reason why",
            "exosphere bulk delete --status success --status failed --until 30d --yes",
            "exosphere bulk list --limit 5 --after x",
            "exosphere bulk show latest",
            "exosphere bulk watch 0195b7f0",
            "exosphere bulk stop 0195b7f0-0000-7000-8000-000000000001",
            "exosphere namespace list",
            "exosphere namespace show --namespace other",
            "exosphere namespace set --limit cpu_ms=1s --limit outputs=10 --slots 4",
            "exosphere grant list",
            "exosphere grant show web",
            "exosphere grant remove web --all",
            "exosphere run start words --input a=1 --input b=@f --store k=v --watch",
            "exosphere run watch 0195b7f0-0000-7000-8000-000000000001",
            "exosphere run list --graph words --status failed --status running --limit 5",
            "exosphere run list --label team=a --label env=b --since 2h --until 2026-01-31",
            "exosphere run states 0195b7f0-0000-7000-8000-000000000001 --node a --kind timeout",
            "exosphere run start words --label team=a --label url=http://x:1",
            "exosphere run show 0195b7f0-0000-7000-8000-000000000001 split.count[3]",
            "exosphere run show latest",
            "exosphere run inputs 0195b7f0/split.count[3] --raw",
            "exosphere run outputs latest split --after 1000 --limit 1000",
            "exosphere run result latest --raw --all",
            "exosphere run start words --inputs - --input-json a=@f",
            "exosphere run states 0195b7f0-0000-7000-8000-000000000001 --status ERRORED",
            "exosphere run retry 0195b7f0-0000-7000-8000-000000000001 split",
            "exosphere run cancel 0195b7f0-0000-7000-8000-000000000001",
            "exosphere run pause 0195b7f0-0000-7000-8000-000000000001",
            "exosphere run resume 0195b7f0-0000-7000-8000-000000000001",
            "exosphere run redrive 0195b7f0-0000-7000-8000-000000000001",
            "exosphere run start words --delay 90s --idempotency-key k",
            "exosphere check",
            "exosphere check --data there --json",
            "exosphere openapi",
            "exosphere secret set token --graph bill --from-file -",
            "exosphere secret list --graph bill",
            "exosphere secret remove token --graph bill",
            "exosphere secrets rotate",
            "exosphere secrets rotate --data there --keep-old --json",
            "exosphere secrets rotate --database postgres://localhost/exosphere --key /run/key",
            "exosphere secrets reseal --forget-lost",
            "exosphere check --database postgres://localhost/exosphere",
            "exosphere serve --database postgres://localhost/exosphere --key /run/key",
            "exosphere serve --upload-bytes 1048576 --compile-cpu-seconds 5 --compile-memory-bytes 1073741824",
            "exosphere serve --code-cache-bytes 1073741824",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn invalid_arguments_are_refused_before_sending() {
        for line in [
            "exosphere",
            "exosphere compile",
            "exosphere plugin push",
            "exosphere plugin inspect ..",
            "exosphere graph list --namespace a/b",
            "exosphere run start words --input novalue",
            "exosphere run start words --store =v",
            "exosphere graph rollback words",
            "exosphere plugin remove text --digest abc",
            "exosphere run list --status DONE",
            "exosphere run list --label team",
            "exosphere run list --since yesterday",
            "exosphere run list --limit 0",
            "exosphere run states 0195b7f0-0000-7000-8000-000000000001 --kind late",
            "exosphere key create --label ci --role root --all-namespaces",
            "exosphere key create --label ci --role viewer",
            "exosphere key create --label ci --role viewer --in a --all-namespaces",
            "exosphere key revoke 0bCn",
            "exosphere quota set",
            "exosphere quota set graph=2",
            "exosphere run show ../plugins",
            "exosphere run retry 0195b7f0-0000-7000-8000-000000000001 -- -1",
            "exosphere run outputs latest split --limit 1001",
            "exosphere run start words --input a=[1,",
        ] {
            let error = parse(line).map(|_| line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
