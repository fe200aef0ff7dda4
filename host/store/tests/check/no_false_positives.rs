//! No false positives: a database written by hosts passes the check without violations.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::testing::GraphBuilder;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_domain::testing::SeededRng;
use exosphere_store::{ClaimMode, Control, Operation, Reply};
use serde_json::json;

use crate::harness::{Harness, Kind, TestDatabase};
use crate::runs::{self, Ending, ends, fails, retried};

#[tokio::test]
async fn check_passes_for_every_run_kind() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind, "clean");
        let mut harness = Harness::new(&database).await;
        let runs = runs::all(&mut harness, &database).await;
        // While a host has it open, and after.
        let live = database.check().await;
        assert_eq!(live.violations, [], "{kind:?}");
        harness.close().await;
        let report = database.check().await;
        assert_eq!(report, live, "{kind:?}");
        assert_eq!(report.checked.runs, runs.len() as u64);
        assert_eq!(report.checked.states, database.number("SELECT COUNT(*) FROM state") as u64);
        assert_eq!(report.checked.unites, database.number("SELECT COUNT(*) FROM unite") as u64);
        assert_eq!(report.checked.outputs, database.number("SELECT COUNT(*) FROM output") as u64);
        assert_eq!(report.checked.entries, database.number("SELECT COUNT(*) FROM entry") as u64);
        assert!(report.checked.entries > 3 && report.checked.attempts > 10);
    }
}

/// Draws the end of an execution.
fn draw_ending(rng: &mut SeededRng) -> Ending {
    match rng.below(20) {
        0..10 => ends(Outcome::Outputs(vec!["{}".into(); rng.below(4)])),
        10 => ends(Outcome::Prune(None)),
        11 => ends(Outcome::RequeueAfter(1)),
        12 => ends(Outcome::HostLost),
        13 => ends(Outcome::Released),
        14 => fails(FailureKind::Permanent),
        15 => fails(FailureKind::Retryable),
        16 => None,
        17 => {
            let mut journal = Journal::default();
            journal.increment("n", 1).unwrap();
            Some((Outcome::Outputs(vec!["{}".into()]), journal))
        }
        _ => ends(Outcome::Outputs(vec!["{}".into()])),
    }
}

/// The check passes at any moment of random runs.
#[tokio::test]
async fn check_passes_during_random_runs() {
    for (kind, rounds) in [(Kind::Sqlite, 60), (Kind::Postgres, 25)] {
        let database = TestDatabase::new(kind, "random");
        let mut harness = Harness::new(&database).await;
        let mut rng = SeededRng::new(42);
        let builders: [(&str, GraphBuilder); 5] = [
            ("fan", retried(runs::fan(), "X")),
            ("nested", retried(runs::nested(), "G")),
            ("forks", runs::forks()),
            (
                "tolerant",
                runs::nested().with("E", |node| {
                    node["unites"]["strategy"] = json!("ALL_DONE");
                    node["unites"]["max_failed"] = json!("40%");
                }),
            ),
            ("empty", runs::fan().with("W", |node| node["unites"]["on_empty"] = json!("RUN"))),
        ];
        for round in 0..rounds {
            let (name, builder) = &builders[round % builders.len()];
            let run = harness.start(name, builder, &[("n", "0")]).await;
            let mut steps = rng.below(60);
            let concurrency = 1 + rng.below(6);
            harness
                .drive(&run, concurrency, |_, _| {
                    steps = steps.saturating_sub(1);
                    if steps == 0 { None } else { draw_ending(&mut rng) }
                })
                .await;
            control(&mut harness, &run, &mut rng).await;
            harness.held.retain(|state| state.run != run.info.key);
            if round % 10 == 9 {
                let report = database.check().await;
                assert_eq!(report.violations, [], "{kind:?}, round {round}");
            }
        }
        harness.close().await;
    }
}

/// Cancels, pauses or redrives a run, and may leave before its sweep has ended.
async fn control(harness: &mut Harness, run: &crate::harness::Run, rng: &mut SeededRng) {
    let info = run.info.clone();
    let operation = match rng.below(6) {
        0 => Operation::Control(info, Control::Cancel),
        1 => Operation::Control(info, Control::Pause),
        2 | 3 => harness.redrive(run).await,
        _ => return,
    };
    if let Reply::ToSweep(event) = harness.commit_one(operation).await {
        let (limit, steps) = (1 + rng.below(5) as u32, rng.below(6));
        harness.sweep(run, event, limit, steps).await;
    }
}

/// A check of a database under load sees none of its transactions half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_passes_under_load() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let database = TestDatabase::new(kind, "live");
        let mut harness = Harness::new(&database).await;
        let location = database.location.clone();
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let checks = tokio::spawn(async move {
            let mut checks = 0;
            while stopped.try_recv().is_err() {
                let report = exosphere_store::check(&location).await.unwrap();
                assert_eq!(report.violations, []);
                checks += 1;
            }
            checks
        });
        for round in 0..6 {
            let run = harness.start("fan", &runs::fan(), &[]).await;
            let all = 1_000 + 100 * round;
            harness
                .drive(&run, 100, |node, _| {
                    crate::harness::outputs(if node == "U" { all } else { 1 })
                })
                .await;
        }
        stop.send(()).unwrap();
        let checks = checks.await.unwrap();
        assert!(checks > 2, "{kind:?}: {checks}");
        harness.commit(Vec::new(), ClaimMode::AllDue(0)).await;
        harness.close().await;
    }
}
