//! Tests of the commit order.

use super::*;

const BOUNDS: BatchBounds = BatchBounds { operations: 8, cost: 100, heavy: 1000 };

/// Pushes an operation with its lane, namespace, run, cost and name.
fn push(
    lanes: &mut Lanes<&'static str>,
    (lane, namespace, run, cost): (Lane, i64, i64, u64),
    name: &'static str,
) {
    let (namespace, run) = (NamespaceKey(namespace), RunKey(run));
    lanes.push(LaneCost { lane, namespace, run, cost }, name);
}

/// Takes batches until the queue is empty; returns the names in each.
fn batches(lanes: &mut Lanes<&'static str>) -> Vec<String> {
    let mut batches = Vec::new();
    while !lanes.is_empty() {
        batches.push(lanes.take(BOUNDS).join(" "));
    }
    batches
}

#[test]
fn control_goes_before_ends() {
    let mut lanes = Lanes::default();
    push(&mut lanes, (Lane::End, 1, 1, 1), "end");
    push(&mut lanes, (Lane::Background, 1, 1, 1), "sweep");
    push(&mut lanes, (Lane::Control, 1, 2, 1), "start");
    push(&mut lanes, (Lane::Urgent, 1, 3, 1), "cancel");
    assert_eq!(batches(&mut lanes), ["cancel", "start end sweep"]);
}

#[test]
fn namespaces_and_their_runs_take_turns() {
    let mut lanes = Lanes::default();
    for name in ["a1", "a2", "a3"] {
        push(&mut lanes, (Lane::End, 1, 1, 1), name);
    }
    push(&mut lanes, (Lane::End, 1, 2, 1), "b1");
    push(&mut lanes, (Lane::End, 2, 3, 1), "c1");
    push(&mut lanes, (Lane::End, 2, 3, 1), "c2");
    assert_eq!(batches(&mut lanes), ["a1 c1 b1 c2 a2 a3"]);
}

#[test]
fn batches_are_bounded_by_number() {
    let mut lanes = Lanes::default();
    for _ in 0..20 {
        push(&mut lanes, (Lane::End, 1, 1, 1), "x");
    }
    let sizes: Vec<usize> = std::iter::from_fn(|| {
        let batch = lanes.take(BOUNDS);
        (!batch.is_empty()).then_some(batch.len())
    })
    .collect();
    assert_eq!(sizes, [8, 8, 4]);
}

#[test]
fn batches_are_bounded_by_cost() {
    let mut lanes = Lanes::default();
    for name in ["a", "b", "c"] {
        push(&mut lanes, (Lane::End, 1, 1, 40), name);
    }
    assert_eq!(batches(&mut lanes), ["a b", "c"]);
}

#[test]
fn a_heavy_operation_goes_alone() {
    let mut lanes = Lanes::default();
    push(&mut lanes, (Lane::Control, 1, 1, 5), "start");
    push(&mut lanes, (Lane::Control, 2, 2, 5000), "heavy");
    push(&mut lanes, (Lane::End, 3, 3, 5), "end");
    push(&mut lanes, (Lane::Control, 1, 4, 5), "next");
    assert_eq!(batches(&mut lanes), ["start next end", "heavy"]);
}

#[test]
fn heavy_operations_delay_no_other_namespace() {
    let mut lanes = Lanes::default();
    for _ in 0..4 {
        push(&mut lanes, (Lane::Control, 1, 1, 5000), "heavy");
    }
    assert_eq!(lanes.take(BOUNDS), ["heavy"]);
    push(&mut lanes, (Lane::Control, 2, 2, 5), "start");
    push(&mut lanes, (Lane::Urgent, 2, 3, 5), "cancel");
    assert_eq!(batches(&mut lanes), ["cancel", "start", "heavy", "heavy", "heavy"]);
}

#[test]
fn a_heavy_end_is_not_starved() {
    let mut lanes = Lanes::default();
    push(&mut lanes, (Lane::End, 1, 1, 90), "heavy");
    let mut next = || {
        for _ in 0..9 {
            push(&mut lanes, (Lane::Control, 2, 2, 20), "start");
        }
        lanes.take(BOUNDS)
    };
    let batches_waited = (0..10).take_while(|_| !next().contains(&"heavy")).count();
    assert!(batches_waited <= 2, "it waited for {batches_waited} batches");
}

#[test]
fn starts_leave_room_for_ends() {
    let mut lanes = Lanes::default();
    for _ in 0..20 {
        push(&mut lanes, (Lane::Control, 1, 1, 1), "start");
        push(&mut lanes, (Lane::End, 2, 2, 1), "end");
    }
    let batch = lanes.take(BOUNDS);
    let starts = batch.iter().filter(|name| **name == "start").count();
    assert_eq!((starts, batch.len()), (6, 8));
}

#[test]
fn urgent_operations_leave_every_second_batch() {
    let mut lanes = Lanes::default();
    push(&mut lanes, (Lane::End, 1, 1, 1), "end");
    for _ in 0..20 {
        push(&mut lanes, (Lane::Urgent, 2, 2, 90), "cancel");
    }
    assert_eq!(lanes.take(BOUNDS), ["cancel"]);
    assert!(lanes.take(BOUNDS).contains(&"end"));
}

#[test]
fn one_sweep_goes_with_each_batch() {
    let mut lanes = Lanes::default();
    for name in ["s1", "s2"] {
        push(&mut lanes, (Lane::Background, 1, 1, 1), name);
    }
    for _ in 0..10 {
        push(&mut lanes, (Lane::End, 2, 2, 30), "e");
    }
    assert_eq!(batches(&mut lanes)[..3], ["e e e s1", "e e e s2", "e e e"]);
}

#[test]
fn lightened_operations_make_room() {
    let mut lanes = Lanes::default();
    for _ in 0..4 {
        push(&mut lanes, (Lane::End, 1, 1, 5000), "heavy");
    }
    push(&mut lanes, (Lane::End, 1, 2, 90), "other");
    lanes.lower_costs(Lane::End, RunKey(1), |item| {
        *item = "light";
        1
    });
    assert_eq!(batches(&mut lanes), ["light other light light light"]);
}

#[test]
fn light_operations_go_between_heavy_ones() {
    let bounds = BatchBounds { heavy: 50, ..BOUNDS };
    let mut lanes = Lanes::default();
    for name in ["h1", "h2", "h3"] {
        push(&mut lanes, (Lane::End, 1, 1, 90), name);
    }
    assert_eq!(lanes.take(bounds), ["h1"]);
    push(&mut lanes, (Lane::End, 2, 2, 1), "end");
    push(&mut lanes, (Lane::Control, 2, 3, 1), "start");
    assert_eq!(lanes.take(bounds), ["start", "end"], "not beside the next heavy one");
    push(&mut lanes, (Lane::End, 2, 2, 1), "late");
    assert_eq!(lanes.take(bounds), ["h2", "late"], "a stream of light ones starves no heavy one");
    assert_eq!(lanes.take(bounds), ["h3"], "nothing light is there");
}
