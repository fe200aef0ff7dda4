//! Property tests over arbitrary and mutated templates: no panic, no empty list
//! of problems, and a valid graph survives being written and read.

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::test_runner::{TestRng, TestRunner};

use super::super::testing::GraphBuilder;
use super::{Graph, NodeIx, Value, apply, example};

/// Generates JSON from the words of templates.
fn json_like() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "nodes",
        "node_name",
        "identifier",
        "inputs",
        "next_nodes",
        "unites",
        "strategy",
        "ALL_DONE",
        "max_failed",
        "50%",
        "retry_policy",
        "store_config",
        "required_keys",
        "default_values",
        "secrets",
        "split",
        "count",
        "splitter",
        "worker",
        "${{ splitter.outputs.chunk }}",
        "${{ store.cursor }}",
        "${{",
        "cursor",
        "text",
        "timeout_ms",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|pairs| {
                pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            }),
        ]
    })
}

/// Collects the JSON pointers of all values in some JSON.
fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(n, value)| pointers(value, format!("{at}/{n}"), all));
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, format!("{at}/{key}"), all));
        }
        _ => {}
    }
    all.push(at);
}

fn sound(template: &Value) {
    match apply(template) {
        Ok(applied) => {
            let json = applied.graph.to_json();
            assert_eq!(Graph::from_json(&json), Ok(applied.graph));
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// The edges and unites of a generated graph, by the numbers of its nodes.
#[derive(Debug, Clone)]
struct Lines {
    next: Vec<Vec<usize>>,
    unites: Vec<Option<usize>>,
}

impl Lines {
    /// Creates edges that lead forwards, and unites of earlier nodes.
    fn new(edges: &[u16], unites: &[Option<usize>]) -> Self {
        let size = edges.len();
        let next = |from: usize| {
            let mut next: Vec<_> = (from + 1..size)
                .filter(|to| edges[from] & (1 << to) != 0 && edges[*to] & 3 == 0)
                .collect();
            if from + 1 < size
                && !next.contains(&(from + 1))
                && (next.is_empty() || edges[from] & 1 == 0)
            {
                next.push(from + 1);
            }
            next
        };
        let unites = unites.iter().enumerate();
        Lines {
            next: (0..size).map(next).collect(),
            unites: unites.map(|(at, unite)| unite.filter(|&source| source < at)).collect(),
        }
    }

    fn builder(&self) -> GraphBuilder {
        let mut text = String::new();
        for (from, next) in self.next.iter().enumerate() {
            let unite = self.unites[from];
            let unite = unite.map_or_else(String::new, |source| format!("(n{source})"));
            let next: Vec<_> = next.iter().map(|to| format!("n{to}")).collect();
            text.push_str(&format!("n{from}{unite} > {};", next.join(" ")));
        }
        GraphBuilder::from_text(&text)
    }

    /// Returns whether the last node of a path sees an output of the first, by
    /// this path alone. A unite sees the outputs that its source saw; any other
    /// node sees those that the node before it brings.
    fn sees_along(&self, path: &[usize]) -> bool {
        let mut visible = vec![false; path.len()];
        for at in 1..path.len() {
            assert!(self.next[path[at - 1]].contains(&path[at]), "{path:?} has no such edge");
            visible[at] = match self.unites[path[at]] {
                Some(source) => {
                    path.iter().position(|node| *node == source).is_some_and(|at| visible[at])
                }
                None => at == 1 || visible[at - 1],
            };
        }
        visible.last().copied().unwrap_or_default()
    }
}

/// Generates a graph of up to 9 nodes, some of which refer to others.
fn drawn() -> impl Strategy<Value = GraphBuilder> {
    drawn_with_lines().prop_map(|(_, builder)| builder)
}

fn drawn_with_lines() -> impl Strategy<Value = (Lines, GraphBuilder)> {
    let size = 9usize;
    let edges = prop::collection::vec(any::<u16>(), size);
    let unites = prop::collection::vec(prop::option::weighted(0.4, 0..size), size);
    let inputs = prop::collection::vec((0..size, 0..size), 0..4);
    (edges, unites, inputs).prop_map(move |(edges, unites, inputs)| {
        let lines = Lines::new(&edges, &unites);
        let builder = inputs.iter().fold(lines.builder(), |builder, (node, target)| {
            builder.input(&format!("n{node}"), "x", format!("${{{{ n{target}.outputs.f }}}}"))
        });
        (lines, builder)
    })
}

/// Returns the nodes on the path that a problem names.
fn path_named(problem: &str) -> Option<Vec<usize>> {
    let (_, rest) = problem.split_once("is missing on the path ")?;
    let (path, _) = rest.split_once(':')?;
    path.split(" → ").map(|node| node.strip_prefix('n')?.parse().ok()).collect()
}

/// Checks regions and counts against the model, by brute force over all paths.
fn check_by_paths(graph: &Graph) {
    let in_region = |unite: NodeIx, node: NodeIx| {
        let unites = graph.node(unite).unites.as_ref();
        unites.is_some_and(|it| graph.reaches(it.source, node) && graph.reaches(node, unite))
    };
    let unites: Vec<_> =
        graph.nodes().filter(|(_, node)| node.unites.is_some()).map(|(ix, _)| ix).collect();
    for (ix, node) in graph.nodes() {
        let in_scope: Vec<_> =
            unites.iter().copied().filter(|unite| in_region(*unite, ix)).collect();
        assert_eq!(node.scopes, in_scope);
        let innermost = |unite: &NodeIx| {
            !in_scope.iter().any(|other| other != unite && in_region(*unite, *other))
        };
        let counts: Vec<_> = in_scope.iter().copied().filter(innermost).collect();
        assert_eq!(node.counts_in, counts);
        for (to, _) in graph.nodes() {
            let step = node.next.iter().any(|next| *next == to || graph.reaches(*next, to));
            assert_eq!(graph.reaches(ix, to), step);
        }
        if let Some(unites) = &node.unites {
            assert!(graph.node(unites.source).united_by.contains(&ix));
            assert!(!avoids(graph, unites.source, ix), "the source is on every path");
        } else {
            assert_eq!(node.gathers(), []);
            let on_every_path = |seen: &NodeIx| !avoids(graph, *seen, ix);
            assert!(node.singles().iter().all(on_every_path));
        }
        assert!(node.singles().iter().all(|seen| node.carries.contains(seen)));
    }
}

/// Returns whether a path leads from the root to `to` without passing `past`.
fn avoids(graph: &Graph, avoided: NodeIx, to: NodeIx) -> bool {
    fn walk(graph: &Graph, at: NodeIx, avoided: NodeIx, to: NodeIx) -> bool {
        at != avoided
            && (at == to || graph.node(at).next.iter().any(|next| walk(graph, *next, avoided, to)))
    }
    walk(graph, graph.root(), avoided, to)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_validated_without_panic(template in json_like()) {
        sound(&template);
        let _ = Graph::from_json(&template);
    }

    #[test]
    fn mutated_templates_are_validated_without_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), json_like()), 1..4),
    ) {
        let mut template = example();
        for (at, value) in changes {
            let mut all = Vec::new();
            pointers(&template, String::new(), &mut all);
            let place: &String = at.get(&all);
            *template.pointer_mut(place).unwrap() = value;
        }
        sound(&template);
        let _ = Graph::from_json(&template);
    }

    #[test]
    fn drawn_graphs_match_the_model(builder in drawn()) {
        match builder.build() {
            Ok(graph) => {
                check_by_paths(&graph);
                prop_assert_eq!(Graph::from_json(&graph.to_json()), Ok(graph));
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}

fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
}

#[test]
fn a_named_path_lacks_the_value() {
    let named = std::cell::Cell::new((0, 0));
    let walk = |(lines, builder): (Lines, GraphBuilder)| {
        let problems = builder.build().err().unwrap_or_default();
        for path in problems.iter().filter_map(|problem| path_named(&problem.message)) {
            prop_assert!(path.len() > 1 && !lines.sees_along(&path), "{path:?} in {lines:?}");
            let (paths, references) = named.get();
            let ends_at_its_unite = path.len() > 1 && lines.unites[path[path.len() - 1]].is_some();
            named.set((paths + 1, references + usize::from(!ends_at_its_unite)));
        }
        Ok(())
    };
    runner(8_000).run(&drawn_with_lines(), walk).unwrap();
    let (paths, references) = named.get();
    assert!(
        paths > 100 && references > 50,
        "{paths} paths, {references} of them lead past a unite"
    );
}

#[test]
fn many_drawn_graphs_are_valid() {
    let mut runner = runner(ProptestConfig::default().cases);
    let valid = std::cell::Cell::new((0, 0));
    let count = |builder: GraphBuilder| {
        let (graphs, unites) = valid.get();
        if let Ok(graph) = builder.build() {
            let has_unites = graph.nodes().any(|(_, node)| node.unites.is_some());
            valid.set((graphs + 1, unites + usize::from(has_unites)));
        }
        Ok(())
    };
    runner.run(&drawn(), count).unwrap();
    let (graphs, unites) = valid.get();
    assert!(graphs > 10 && unites > 5, "{graphs} graphs, {unites} of them with unites");
}
