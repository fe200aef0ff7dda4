//! Tests of regions, counts and visibility, over small graphs.

use super::super::testing::GraphBuilder;
use super::*;

fn draw(text: &str) -> Graph {
    GraphBuilder::from_text(text).build().unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

fn names(graph: &Graph, places: &[NodeIx]) -> String {
    let mut names: Vec<_> = places.iter().map(|ix| graph.node(*ix).identifier.as_str()).collect();
    names.sort();
    names.join(" ")
}

fn refused(builder: &GraphBuilder) -> String {
    builder.build().map_or_else(|problems| lines(problems).join("\n"), |_| "valid".to_owned())
}

/// A graph, the region of each unite, and the nodes that count in each unite.
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

#[test]
fn unite_regions_and_scopes_match_the_table() {
    let table: [Row<'_>; 7] = [
        (
            "A > B C; B > G F; G > E; E(B) > D; C > D; D(A)",
            &[("E", "G"), ("D", "B C E G")],
            &[("G", "E"), ("B", "D"), ("C", "D"), ("E", "D"), ("F", ""), ("A", ""), ("D", "")],
        ),
        (
            "U > X; X > W1 W2; W1(U) > J; W2(U) > J; J(U)",
            &[("W1", "X"), ("W2", "X"), ("J", "W1 W2 X")],
            &[("X", "W1 W2"), ("W1", "J"), ("W2", "J"), ("J", "")],
        ),
        (
            "U > X; X > Y Z; Y > W1; Z > W2; W1(U); W2(U)",
            &[("W1", "X Y"), ("W2", "X Z")],
            &[("X", "W1 W2"), ("Y", "W1"), ("Z", "W2")],
        ),
        ("U > W A; A > W; W(U)", &[("W", "A")], &[("A", "W"), ("U", "")]),
        ("U > W; W(U) > B", &[("W", "")], &[("B", "")]),
        (
            "R > U; U > X; X > V; V > Y; Y > W2; W2(X) > W1; W1(U)",
            &[("W2", "V Y"), ("W1", "V W2 X Y")],
            &[("V", "W2"), ("W2", "W1"), ("X", "W1"), ("U", "")],
        ),
        ("U > S X; S > T; X > W; W(U)", &[("W", "X")], &[("S", ""), ("T", ""), ("X", "W")]),
    ];
    for (text, regions, counts) in table {
        let graph = draw(text);
        for (unite, region) in regions {
            let unite = graph.node(graph.find(unite).unwrap());
            assert_eq!(names(&graph, &unite.unites.as_ref().unwrap().region), *region, "{text}");
        }
        for (name, counts_in) in counts {
            let node = graph.node(graph.find(name).unwrap());
            assert_eq!(names(&graph, &node.counts_in), *counts_in, "{name} in {text}");
        }
        assert_eq!(Graph::from_json(&graph.to_json()).as_ref(), Ok(&graph));
    }
}

#[test]
fn impossible_unites_are_refused() {
    let table = [
        (
            "R > U A; U > W; A > W; W(U)",
            "$.nodes[3].unites.identifier: \"U\" must lie on every path to \"W\", but R → A → W \
             goes past it; unite a node that all branches come from",
        ),
        ("R > U W; W(U); U", "$.nodes[1].unites.identifier: \"U\" does not lead to \"W\""),
        (
            "A > U; U > C; C(A) > W; W(U)",
            "$.nodes[3].unites.identifier: \"U\" lies in the region of the unite \"C\", which \
             has closed before this; unite \"U\" before \"C\", or unite \"C\" or an earlier node",
        ),
    ];
    for (text, message) in table {
        assert_eq!(refused(&GraphBuilder::from_text(text)), message, "{text}");
    }
}

#[test]
fn references_are_visible_as_listed() {
    let split = "R > A B; A > C; B > C; C > W; W(C) > E";
    let table = [
        (split, "A", "R", "single"),
        (split, "C", "R", "single"),
        (
            split,
            "C",
            "A",
            "$.nodes[3].inputs.x: \"A\" has no output on the path R → B → C; refer to a node that lies on every path",
        ),
        (
            split,
            "A",
            "B",
            "$.nodes[1].inputs.x: \"B\" does not lead to \"A\"; refer to a node on the way to it",
        ),
        (split, "W", "C", "gather"),
        (split, "W", "R", "single"),
        (split, "E", "W", "single"),
        (split, "E", "R", "single"),
        (
            split,
            "E",
            "C",
            "$.nodes[5].inputs.x: \"C\" is missing on the path C → W → E: its branches end in \
             the unite \"W\"; return it from \"W\" and refer to that",
        ),
        ("U > X; X > Y; Y > V; V(X) > W; W(U)", "W", "Y", "gather"),
        ("U > X; X > Y; Y > V; V(X) > W; W(U)", "V", "U", "single"),
        (
            "U > X; X > Y; Y > V; V(X) > Z; Z > W; W(U)",
            "Z",
            "Y",
            "$.nodes[4].inputs.x: \"Y\" is missing on the path Y → V → Z: its branches end in \
             the unite \"V\"; return it from \"V\" and refer to that",
        ),
        (
            "U > X; X > V; V(U) > Z; Z > W; W(V)",
            "W",
            "X",
            "$.nodes[4].inputs.x: \"X\" is missing on the path X → V → Z → W: its branches end \
             in the unite \"V\"; return it from \"V\" and refer to that",
        ),
    ];
    for (text, node, target, expected) in table {
        let builder = GraphBuilder::from_text(text).input(
            node,
            "x",
            format!("${{{{ {target}.outputs.f }}}}"),
        );
        let Ok(graph) = builder.build() else {
            assert_eq!(refused(&builder), expected, "{node} of {target} in {text}");
            continue;
        };
        let (node, target) = (graph.node(graph.find(node).unwrap()), graph.find(target).unwrap());
        match expected {
            "single" => {
                assert_eq!((node.singles(), node.gathers()), (&[target][..], &[][..]), "{text}")
            }
            "gather" => {
                assert_eq!((node.singles(), node.gathers()), (&[][..], &[target][..]), "{text}")
            }
            _ => panic!("{text} is valid, but {expected} was expected"),
        }
    }
}

#[test]
fn nodes_carry_outputs_referenced_later() {
    let graph = GraphBuilder::from_text("R > A; A > B C; B > W; C > W; W(A) > E; E")
        .input("B", "x", "${{ A.outputs.f }}")
        .input("E", "x", "${{ R.outputs.f }}")
        .input("W", "x", "${{ B.outputs.f }} ${{ unite.branches }}")
        .build()
        .unwrap();
    let carries = |name| names(&graph, &graph.node(graph.find(name).unwrap()).carries);
    assert_eq!(["R", "A", "B", "C", "W", "E"].map(carries), ["", "R", "A", "", "R", "R"]);
    let unite = graph.node(graph.find("W").unwrap());
    assert!(unite.wants_branches());
    assert_eq!(names(&graph, unite.gathers()), "B");
}

#[test]
fn a_failure_above_leaves_a_gap() {
    let graph = draw("U > X; X > Y; Y > V; V(X) > Z; Z > W; W(U)");
    let leaves_gap =
        |a: &str, b: &str| graph.leaves_gap(graph.find(a).unwrap(), graph.find(b).unwrap());
    let table = [
        ("U", "W", true),
        ("X", "Y", true),
        ("X", "Z", true),
        ("Y", "V", false),
        ("Y", "Z", false),
        ("V", "Z", true),
        ("Z", "X", false),
        ("X", "X", false),
        ("X", "W", false),
    ];
    for (a, b, expected) in table {
        assert_eq!(leaves_gap(a, b), expected, "{a} above {b}");
    }
}

/// Builds a hundred layers of ten nodes, every node leading to the whole next
/// layer.
fn layers() -> GraphBuilder {
    let layers: Vec<Vec<String>> =
        (0..99).map(|layer| (0..10).map(|at| format!("n{layer}_{at}")).collect()).collect();
    let mut text = format!("root > {};", layers[0].join(" "));
    for pair in layers.windows(2) {
        pair[0].iter().for_each(|name| text.push_str(&format!("{name} > {};", pair[1].join(" "))));
    }
    layers.iter().flatten().fold(GraphBuilder::from_text(&text), |builder, name| {
        builder.input(name, "x", "${{ root.outputs.x }}")
    })
}

/// Builds five hundred nested unites.
fn nest() -> GraphBuilder {
    let descending: String = (0..499).map(|n| format!("d{n} > d{};", n + 1)).collect();
    let ascending: String = (1..500).map(|n| format!("u{n}(d{n}) > u{};", n - 1)).collect();
    let nest = GraphBuilder::from_text(&format!("{descending} d499 > u499; {ascending} u0(d0);"));
    (0..500).fold(nest, |builder, n| builder.input(&format!("u{n}"), "x", "${{ d499.outputs.x }}"))
}

#[test]
fn a_thousand_nodes_are_quick() {
    for (builder, size) in [(layers(), 991), (nest(), 1000)] {
        let started = std::time::Instant::now();
        let graph = builder.build().unwrap();
        let elapsed = started.elapsed();
        // A fraction of a second on an idle machine, unoptimised. The test
        // machine may be busy; an exponential algorithm takes minutes.
        assert!(elapsed < std::time::Duration::from_secs(10), "{elapsed:?}");
        assert_eq!(graph.nodes().len(), size);
    }
}
