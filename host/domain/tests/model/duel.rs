//! Engine and reference side by side: the same graph, the same fates, the same
//! manual retries, compared after every step.

use std::collections::BTreeMap;

use exosphere_domain::graph::{Graph as RealGraph, Problem};
use exosphere_domain::ids::Digest;
use exosphere_domain::state::Status;
use serde_json::{Map, Value, json};

use crate::engine::{Engine, Refusal};
use crate::fates::{Dice, Fate};
use crate::reference::{self, Branch, Entry, Run};
use crate::shape::{Graph, MaxFailed, Shape, Strategy};

/// The crate's graph of the same shape. Every node's inputs name its singles;
/// a unite's name also all that it can gather, and its branches.
pub fn real(graph: &Graph) -> Result<RealGraph, Vec<Problem>> {
    let shape = Shape::of(graph);
    let name = |at: usize| graph.nodes[at].name.clone();
    let nodes: Vec<_> = graph
        .nodes
        .iter()
        .enumerate()
        .map(|(at, node)| {
            let mut gathers: Vec<_> = shape.region[at].iter().copied().collect();
            gathers.extend(node.unites.as_ref().map(|unites| unites.source));
            let named: Vec<_> = node.singles.iter().copied().chain(gathers).collect();
            let input = |at| (name(at), json!(format!("${{{{ {}.outputs.v }}}}", name(at))));
            let mut json = json!({
                "node_name": "any",
                "identifier": node.name,
                "plugin": "any",
                "digest": Digest::of(b"any"),
                "inputs": named.into_iter().map(input).collect::<Map<_, _>>(),
                "next_nodes": node.next.iter().map(|&next| name(next)).collect::<Vec<_>>(),
                "retry_policy": {"max_retries": node.max_retries},
            });
            if let Some(unites) = &node.unites {
                json["inputs"]["branches"] = json!("${{ unite.branches }}");
                json["unites"] = json!({
                    "identifier": name(unites.source),
                    "on_empty": if unites.run_when_empty { "RUN" } else { "PRUNE" },
                });
                let (strategy, max_failed) = match unites.strategy {
                    Strategy::AllSuccess => ("ALL_SUCCESS", Value::Null),
                    Strategy::AllDone(MaxFailed::Any) => ("ALL_DONE", Value::Null),
                    Strategy::AllDone(MaxFailed::Count(most)) => ("ALL_DONE", json!(most)),
                    Strategy::AllDone(MaxFailed::Percent(most)) => {
                        ("ALL_DONE", json!(format!("{most}%")))
                    }
                };
                json["unites"]["strategy"] = json!(strategy);
                json["unites"]["max_failed"] = max_failed;
            }
            json
        })
        .collect();
    RealGraph::from_json(&json!({ "nodes": nodes }))
}

/// How a run went in the end: each state by its path with node, status, reason
/// of failure and inputs.
pub type Ending = BTreeMap<String, (u32, Status, Option<String>, Option<Map<String, Value>>)>;

/// Says what an execution comes to: by the name of the node, the state's path
/// and how often it was executed before.
pub type Fates = Box<dyn Fn(&str, &str, u32) -> Fate>;

/// Both at once.
pub struct Duel {
    /// The crate at work.
    pub engine: Engine,
    /// What it ought to be.
    pub reference: Run,
    /// The graph of both.
    pub graph: Graph,
    /// Manual retries that were accepted, and those that came too late.
    pub retried: (usize, usize),
    fates: Fates,
    /// The reference's number of each row of the engine.
    twins: Vec<usize>,
}

impl Duel {
    /// A run that has just begun.
    pub fn begin(graph: &Graph, fates: Fates) -> Self {
        let real = real(graph).unwrap_or_else(|problems| panic!("{graph:?}: {problems:#?}"));
        let mut duel = Duel {
            engine: Engine::begin(real),
            reference: Run::begin(graph),
            graph: graph.clone(),
            retried: (0, 0),
            fates,
            twins: Vec::new(),
        };
        duel.compare();
        duel
    }

    /// Runs until nothing is left to do, in an order by lot: claims, and
    /// commits of one or several, and with `retries` so many manual retries.
    pub fn play(&mut self, dice: &mut Dice, mut retries: u32) {
        // No run needs as many steps. One that does hangs.
        for _ in 0..100_000 {
            let created = self.with(Status::Created);
            let queued = self.with(Status::Queued);
            if retries > 0 && dice.percent(if queued.is_empty() { 30 } else { 4 }) {
                retries -= 1;
                self.retry_some(dice);
            } else if !created.is_empty() && (queued.is_empty() || dice.percent(50)) {
                self.engine.claim(dice.pick(&created));
            } else if !queued.is_empty() {
                self.finish(queued, dice);
            } else if retries == 0 {
                return;
            }
            self.compare();
        }
        panic!("the run does not end");
    }

    fn with(&self, status: Status) -> Vec<usize> {
        (0..self.engine.rows.len()).filter(|&at| self.engine.rows[at].status == status).collect()
    }

    fn finish(&mut self, mut queued: Vec<usize>, dice: &mut Dice) {
        dice.shuffle(&mut queued);
        queued.truncate(if dice.percent(50) { 1 } else { 1 + dice.below(6) });
        let batch: Vec<_> = queued
            .into_iter()
            .map(|at| {
                let row = &self.engine.rows[at];
                let node = &self.graph.nodes[row.place.node.at()].name;
                (at, (self.fates)(node, &row.key, row.executed - 1))
            })
            .collect();
        self.engine.commit(&batch);
        for (at, fate) in &batch {
            self.reference.apply(self.twins[*at], fate);
        }
    }

    /// Retries a state by hand: mostly one that failed, now and then any.
    fn retry_some(&mut self, dice: &mut Dice) {
        let failed = self.with(Status::Errored);
        let at = match failed.is_empty() || dice.percent(10) {
            true => dice.below(self.engine.rows.len()),
            false => dice.pick(&failed),
        };
        match self.retry(at) {
            Ok(()) => self.retried.0 += 1,
            Err(reference::Refusal::WentOn) => self.retried.1 += 1,
            Err(_) => {}
        }
    }

    /// Retries a state by hand.
    pub fn retry(&mut self, at: usize) -> Result<(), reference::Refusal> {
        let here = self.engine.retry(at).map_err(|refusal| match refusal {
            Refusal::NotFailed => reference::Refusal::NotFailed,
            Refusal::Blocked => reference::Refusal::Blocked,
            Refusal::WentOn => reference::Refusal::WentOn,
        });
        let there = self.reference.retry(self.twins[at]);
        assert_eq!(here, there, "the retry of {}", self.engine.rows[at].key);
        here
    }

    /// Holds that both are in the same state.
    fn compare(&mut self) {
        self.pair();
        for (row, &twin) in self.engine.rows.iter().zip(&self.twins) {
            let exec = &self.reference.execs[twin];
            let status = match row.status {
                // Claims are no affair of the reference.
                Status::Queued => Status::Created.as_str(),
                status => status.as_str(),
            };
            assert_eq!(status, exec.status.as_str(), "{} at {}", row.key, row.place.node.0);
        }
        assert_eq!(self.engine.status.as_str(), self.reference.status().as_str(), "the run");
    }

    /// Finds the twin of each new state; none is left over.
    fn pair(&mut self) {
        let new = self.twins.len();
        let known: BTreeMap<&str, usize> = self.reference.execs[new..]
            .iter()
            .zip(new..)
            .map(|(exec, at)| (exec.key.as_str(), at))
            .collect();
        for row in &self.engine.rows[new..] {
            let twin = known.get(row.key.as_str()).copied();
            let twin = twin.unwrap_or_else(|| panic!("{} ought not to be", row.key));
            let node = self.reference.execs[twin].node;
            assert_eq!(row.place.node.at(), node, "the node of {}", row.key);
            self.twins.push(twin);
        }
        assert_eq!(self.twins.len(), self.reference.execs.len(), "states are missing");
    }

    /// Holds that all came out alike: inputs, reasons, counters, ends.
    pub fn compare_end(&self) {
        assert_ne!(self.engine.status.as_str(), "RUNNING", "the run hangs");
        assert_eq!(self.engine.run.open, 0);
        assert_eq!(self.engine.run.failed, i64::from(self.reference.failed(None)));
        for (at, (row, &twin)) in self.engine.rows.iter().zip(&self.twins).enumerate() {
            let exec = &self.reference.execs[twin];
            assert!(row.status.is_terminal(), "{} is left {}", row.key, row.status);
            let why = row.failure.as_ref().map(|failure| failure.kind.as_str());
            assert_eq!(why, exec.why, "why {} failed", row.key);
            if let Some(unite) = &row.unite {
                let counts = (unite.counts.open, unite.counts.failed, unite.counts.arrived);
                let recount = (
                    i64::from(self.reference.open(Some(twin))),
                    i64::from(self.reference.failed(Some(twin))),
                    i64::from(self.reference.arrived(twin)),
                );
                assert_eq!(counts, recount, "the counts of {}", row.key);
            }
            if let Some(inputs) = &row.inputs {
                assert_eq!(inputs, &self.inputs(twin), "the inputs of {}", row.key);
                assert_eq!(inputs, &self.engine.inputs(at), "the inputs of {} changed", row.key);
            }
        }
    }

    /// The inputs that a state ought to have had.
    fn inputs(&self, twin: usize) -> Map<String, Value> {
        let exec = &self.reference.execs[twin];
        let node = &self.graph.nodes[exec.node];
        let text = |(at, n): (usize, u32)| format!("{}#{n}", self.reference.execs[at].key);
        let entry = |entry: Entry| json!(entry.map(text));
        let mut inputs = Map::new();
        for &single in &node.singles {
            let value = json!(text(self.reference.single(twin, single)));
            inputs.insert(self.graph.nodes[single].name.clone(), value);
        }
        let Some(unites) = &node.unites else { return inputs };
        let shape = Shape::of(&self.graph);
        for &wanted in shape.region[exec.node].iter().chain([&unites.source]) {
            let entries = self.reference.gather(twin, wanted).into_iter().map(entry);
            inputs.insert(self.graph.nodes[wanted].name.clone(), entries.collect());
        }
        let branches = self.reference.branches(twin).into_iter().enumerate();
        let branches: Vec<_> = branches.map(|(at, branch)| self.branch(at, &branch)).collect();
        inputs.insert("branches".into(), json!(branches));
        inputs
    }

    fn branch(&self, index: usize, branch: &Branch) -> Value {
        let (status, error) = match branch {
            Branch::Success => ("SUCCESS", Value::Null),
            Branch::Pruned => ("PRUNED", Value::Null),
            Branch::Errored(at) => {
                let exec = &self.reference.execs[*at];
                let twin = self.twins.iter().position(|twin| twin == at).expect("it has a twin");
                // The words are the crate's own; here it matters whose they are.
                let message = self.engine.rows[twin].failure.as_ref().map(|f| &f.message);
                let identifier = &self.graph.nodes[exec.node].name;
                ("ERRORED", json!({"identifier": identifier, "kind": exec.why, "message": message}))
            }
        };
        json!({"index": index, "status": status, "error": error})
    }

    /// How it went.
    pub fn ending(&self) -> Ending {
        let ending = |row: &crate::engine::Row| {
            let why = row.failure.as_ref().map(|failure| failure.to_string());
            (row.key.clone(), (row.place.node.0, row.status, why, row.inputs.clone()))
        };
        self.engine.rows.iter().map(ending).collect()
    }
}
