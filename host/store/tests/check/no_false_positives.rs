//! Databases written by hosts pass the check without violations.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::graph::sketch::Sketch;
use exosphere_domain::journal::Journal;
use exosphere_domain::outcome::Outcome;
use exosphere_store::{Answer, Member, Want};
use serde_json::json;

use crate::harness::{Bed, Kind, Place};
use crate::runs::{self, Fate, ends, fails, retried};

#[tokio::test]
async fn check_passes_for_every_run_kind() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind, "clean");
        let mut bed = Bed::new(&place).await;
        let runs = runs::all(&mut bed, &place).await;
        // With a host on it, and without.
        let live = place.check().await;
        assert_eq!(live.violations, [], "{kind:?}");
        bed.close().await;
        let report = place.check().await;
        assert_eq!(report, live, "{kind:?}");
        assert_eq!(report.checked.runs, runs.len() as u64);
        assert_eq!(report.checked.states, place.number("SELECT COUNT(*) FROM state") as u64);
        assert_eq!(report.checked.unites, place.number("SELECT COUNT(*) FROM unite") as u64);
        assert_eq!(report.checked.outputs, place.number("SELECT COUNT(*) FROM output") as u64);
        assert_eq!(report.checked.entries, place.number("SELECT COUNT(*) FROM entry") as u64);
        assert!(report.checked.entries > 3 && report.checked.attempts > 10);
    }
}

/// A small random generator: a failing seed can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn fate(&mut self) -> Fate {
        match self.below(20) {
            0..10 => ends(Outcome::Outputs(vec!["{}".into(); self.below(4) as usize])),
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
}

/// The check passes at any moment of random runs.
#[tokio::test]
async fn check_passes_during_random_runs() {
    for (kind, rounds) in [(Kind::Sqlite, 60), (Kind::Postgres, 25)] {
        let place = Place::new(kind, "random");
        let mut bed = Bed::new(&place).await;
        let mut dice = Dice(42);
        let sketches: [(&str, Sketch); 5] = [
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
            let (name, sketch) = &sketches[round % sketches.len()];
            let run = bed.start(name, sketch, &[("n", "0")]).await;
            let mut steps = dice.below(60);
            let at_once = 1 + dice.below(6) as usize;
            bed.drive(&run, at_once, |_, _| {
                steps = steps.saturating_sub(1);
                if steps == 0 { None } else { dice.fate() }
            })
            .await;
            control(&mut bed, &run, &mut dice).await;
            bed.held.retain(|state| state.run != run.info.key);
            if round % 10 == 9 {
                let report = place.check().await;
                assert_eq!(report.violations, [], "{kind:?}, round {round}");
            }
        }
        bed.close().await;
    }
}

/// Cancels, pauses or redrives a run, and may leave before its sweep has ended.
async fn control(bed: &mut Bed, run: &crate::harness::Run, dice: &mut Dice) {
    let info = run.info.clone();
    let member = match dice.below(6) {
        0 => Member::Cancel(info),
        1 => Member::Pause { run: info, paused: true },
        2 | 3 => bed.redrive(run).await,
        _ => return,
    };
    if let Answer::ToSweep(event) = bed.one(member).await {
        let (most, steps) = (1 + dice.below(5) as u32, dice.below(6) as usize);
        bed.sweep(run, event, most, steps).await;
    }
}

/// A check of a database under load sees none of its transactions half done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_passes_under_load() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let place = Place::new(kind, "live");
        let mut bed = Bed::new(&place).await;
        let database = place.database.clone();
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let checks = tokio::spawn(async move {
            let mut checks = 0;
            while stopped.try_recv().is_err() {
                let report = exosphere_store::check(&database).await.unwrap();
                assert_eq!(report.violations, []);
                checks += 1;
            }
            checks
        });
        for round in 0..6 {
            let run = bed.start("fan", &runs::fan(), &[]).await;
            let all = 1_000 + 100 * round;
            bed.drive(&run, 100, |node, _| {
                crate::harness::outputs(if node == "U" { all } else { 1 })
            })
            .await;
        }
        stop.send(()).unwrap();
        let checks = checks.await.unwrap();
        assert!(checks > 2, "{kind:?}: {checks}");
        bed.commit(Vec::new(), Want::Claims(0)).await;
        bed.close().await;
    }
}
