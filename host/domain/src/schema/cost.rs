//! An upper bound on the steps of a schema check, known before the check begins.
//!
//! A *part* is a subschema that a keyword or a reference reaches. Many parts may visit one value,
//! and each may visit it many times: two references in an `allOf` that lead back to the whole
//! schema double the work with every level of the value. So every part gets a number, and a list
//! of the parts that it applies to the same value and to the members below. Visits are then
//! counted, not made.
//!
//! Not here: the meaning of keywords. Every part that might apply is counted as if it did.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::Refusal;
use crate::budget::{Budget, StepBudget};
use crate::graph::problems::quoted;

/// The maximum number of steps of one check. A check cannot be interrupted, so it has to be
/// short: 100 ms.
pub const MAX_STEPS: u64 = 10_000_000;

/// Steps taken for counting one visit of a part to a value.
const STEPS_PER_VISIT: u64 = 10;

/// Number of visits that are counted between two requests to the budget.
const VISITS_PER_CHARGE: u64 = 100;

/// The maximum number of parts of a schema; a part is counted when a reference or keyword
/// reaches it.
pub const MAX_PARTS: usize = 2_000;

/// The maximum length of a chain of parts that apply each other to the same value.
pub const MAX_CHAIN: usize = 24;

/// The maximum number of patterns in a schema.
pub const MAX_PATTERNS: usize = 100;

/// Steps of a pattern for each [`CHUNK_BYTES`] of a text.
const PATTERN_STEPS: u64 = 400;

/// Steps of `uniqueItems` for each element, which it hashes whole.
const UNIQUE_STEPS: u64 = 20;

/// Steps of `multipleOf` for a number: it computes fractions of any precision.
const MULTIPLE_STEPS: u64 = 1_000;

/// Bytes of a text that count as one step.
const CHUNK_BYTES: u64 = 64;

/// Schema dialects in which `$ref` has the meaning that this module assumes.
const DIALECTS: [&str; 4] =
    ["2020-12/schema", "2019-09/schema", "draft-07/schema", "draft-06/schema"];

/// Refused keywords: they may refer to another schema than they seem to.
const REFUSED_KEYWORDS: [&str; 5] =
    ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor"];

/// The cost of a schema: its parts, and a bound on the steps of a check.
#[derive(Debug)]
pub struct Cost {
    parts: Vec<Part>,
    /// The rank of each part. A part precedes the parts that it applies to the same value.
    rank: Vec<usize>,
    /// The part at each rank.
    order: Vec<usize>,
    /// The maximum number of steps for each unit of a value's size; `None` if the schema is
    /// recursive.
    max: Option<u64>,
    patterns: usize,
}

/// A part, reduced to its cost.
#[derive(Debug, Default)]
struct Part {
    /// Steps for each unit of a value's size.
    weight: u64,
    /// Parts that apply to the same value.
    same_value: Vec<usize>,
    /// Number of times that `here` is applied.
    factor: u64,
    /// The part that applies to each named member.
    properties: BTreeMap<String, usize>,
    /// Parts that may apply to any member.
    any_member: Vec<usize>,
    /// Parts that apply to the members not named in `properties`.
    other_members: Vec<usize>,
    /// Parts that apply to the first elements, by index.
    first: Vec<usize>,
    /// Parts that may apply to any element.
    elements: Vec<usize>,
}

impl Part {
    fn all(&self) -> impl Iterator<Item = usize> {
        let lists =
            [&self.same_value, &self.any_member, &self.other_members, &self.first, &self.elements];
        lists.into_iter().flatten().chain(self.properties.values()).copied()
    }
}

/// A count of the steps of a check, and of the visits made while counting.
struct Count<'a> {
    steps: u64,
    visits: u64,
    budget: &'a dyn Budget,
}

impl Count<'_> {
    /// Adds the steps of one visit.
    fn add(&mut self, steps: u64) -> Result<(), Refusal> {
        self.steps = self.steps.saturating_add(steps);
        self.visits += 1;
        if self.visits.is_multiple_of(VISITS_PER_CHARGE) {
            self.budget.take(VISITS_PER_CHARGE * STEPS_PER_VISIT)?;
        }
        if self.steps > MAX_STEPS {
            return Err(Refusal::Mismatch(format!(
                "$ takes more than {MAX_STEPS} steps to check against the schema; use a smaller \
                 value or a simpler schema"
            )));
        }
        Ok(())
    }
}

/// The parts that visit a value, each with its number of visits.
type Visits = BTreeMap<usize, u64>;

impl Cost {
    /// Computes the cost of a schema, or returns the reason why the schema is
    /// refused.
    pub fn estimate(schema: &Value) -> Result<Cost, String> {
        dialect(schema)?;
        let (parts, patterns) = Reader::read(schema)?;
        let same_value = |part: &Part| part.same_value.clone();
        let Some(order) = sorted(&parts, same_value) else {
            return Err(
                "the schema refers to itself without going deeper into the value".to_owned()
            );
        };
        if longest_chain(&parts, &order) > MAX_CHAIN {
            return Err(format!(
                "more than {MAX_CHAIN} parts of the schema apply by way of each other"
            ));
        }
        let max = sorted(&parts, |part| part.all().collect()).map(|order| total(&parts, &order));
        let mut rank = vec![0; parts.len()];
        order.iter().enumerate().for_each(|(place, &part)| rank[part] = place);
        Ok(Cost { parts, rank, order, max, patterns })
    }

    /// Returns the number of parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Returns the number of patterns.
    pub fn patterns(&self) -> usize {
        self.patterns
    }

    /// Computes an upper bound of the steps that a check of this value takes.
    /// Takes the steps of the computation from the budget, not those of the
    /// check.
    ///
    /// # Errors
    /// If the bound exceeds [`MAX_STEPS`], or the budget is exhausted.
    pub fn check(&self, value: &Value, budget: &dyn Budget) -> Result<u64, Refusal> {
        let bound = self.max.map(|max| max.saturating_mul(size_of_all(value)));
        if let Some(bound) = bound.filter(|bound| *bound <= MAX_STEPS) {
            return Ok(bound);
        }
        let mut count = Count { steps: 0, visits: 0, budget };
        self.visit(value, Visits::from([(self.rank[0], 1)]), &mut count)?;
        Ok(count.steps)
    }

    /// Computes the steps of a check of the smallest value, `{}`.
    pub fn minimum(&self) -> u64 {
        let unlimited = StepBudget::new(u64::MAX);
        let mut count = Count { steps: 0, visits: 0, budget: &unlimited };
        let empty = Value::Object(Map::new());
        let counted = self.visit(&empty, Visits::from([(self.rank[0], 1)]), &mut count);
        counted.map_or(u64::MAX, |()| count.steps)
    }

    /// Counts the visits to a value and to all values below it.
    fn visit(&self, value: &Value, visits: Visits, count: &mut Count<'_>) -> Result<(), Refusal> {
        let mut open = visits;
        let mut closed = Vec::new();
        while let Some((rank, times)) = open.pop_first() {
            let part = &self.parts[self.order[rank]];
            count.add(part.weight.saturating_mul(times).saturating_mul(size(value)))?;
            self.add(&mut open, &part.same_value, times.saturating_mul(part.factor));
            closed.push((part, times));
        }
        let mut visit_child = |value: &Value, next: &dyn Fn(&Part, u64, &mut Visits)| {
            let mut visits = Visits::new();
            closed.iter().for_each(|(part, times)| next(part, *times, &mut visits));
            if visits.is_empty() { Ok(()) } else { self.visit(value, visits, count) }
        };
        match value {
            Value::Array(list) => list.iter().enumerate().try_for_each(|(at, value)| {
                let next = |part: &Part, times, visits: &mut Visits| {
                    self.add(visits, part.first.get(at).as_slice_of(), times);
                    self.add(visits, &part.elements, times);
                };
                visit_child(value, &next)
            }),
            Value::Object(map) => map.iter().try_for_each(|(name, value)| {
                let next = |part: &Part, times, visits: &mut Visits| {
                    match part.properties.get(name) {
                        Some(named) => self.add(visits, std::slice::from_ref(named), times),
                        None => self.add(visits, &part.other_members, times),
                    }
                    self.add(visits, &part.any_member, times);
                };
                visit_child(value, &next)
            }),
            _ => Ok(()),
        }
    }

    fn add(&self, visits: &mut Visits, parts: &[usize], times: u64) {
        for &part in parts {
            let sum = visits.entry(self.rank[part]).or_default();
            *sum = sum.saturating_add(times);
        }
    }
}

/// An optional reference as a slice of zero or one elements.
trait AsSliceOf<T> {
    fn as_slice_of(&self) -> &[T];
}

impl<T> AsSliceOf<T> for Option<&T> {
    fn as_slice_of(&self) -> &[T] {
        self.map_or(&[], std::slice::from_ref)
    }
}

/// Returns the size of a value itself, without its members and elements.
fn size(value: &Value) -> u64 {
    let extra = match value {
        Value::String(text) => text.len() as u64 / CHUNK_BYTES,
        Value::Array(list) => list.len() as u64,
        // Patterns check names, too.
        Value::Object(map) => map.keys().map(|key| 1 + key.len() as u64 / CHUNK_BYTES).sum(),
        _ => 0,
    };
    1 + extra
}

fn size_of_all(value: &Value) -> u64 {
    size(value)
        + match value {
            Value::Array(list) => list.iter().map(size_of_all).sum(),
            Value::Object(map) => map.values().map(size_of_all).sum(),
            _ => 0u64,
        }
}

/// Sorts the parts so that each precedes the parts it leads to; `None` if the
/// parts form a cycle.
fn sorted(parts: &[Part], leads_to: impl Fn(&Part) -> Vec<usize>) -> Option<Vec<usize>> {
    let edges: Vec<_> = parts.iter().map(leads_to).collect();
    let mut incoming = vec![0usize; parts.len()];
    edges.iter().flatten().for_each(|&to| incoming[to] += 1);
    let mut order: Vec<_> = (0..parts.len()).filter(|&part| incoming[part] == 0).collect();
    let mut next = 0;
    while let Some(&part) = order.get(next) {
        next += 1;
        for &to in &edges[part] {
            incoming[to] -= 1;
            if incoming[to] == 0 {
                order.push(to);
            }
        }
    }
    (order.len() == parts.len()).then_some(order)
}

fn longest_chain(parts: &[Part], order: &[usize]) -> usize {
    let mut chain = vec![1; parts.len()];
    for &part in order {
        for &to in &parts[part].same_value {
            chain[to] = chain[to].max(chain[part] + 1);
        }
    }
    chain.into_iter().max().unwrap_or(0)
}

/// Sums the weights of all paths through a schema that is not recursive.
fn total(parts: &[Part], order: &[usize]) -> u64 {
    let mut paths = vec![0u64; parts.len()];
    paths[0] = 1;
    let mut sum = 0u64;
    for &part in order {
        sum = sum.saturating_add(paths[part].saturating_mul(parts[part].weight));
        let onward = paths[part].saturating_mul(parts[part].factor);
        for to in parts[part].all() {
            paths[to] = paths[to].saturating_add(onward);
        }
    }
    sum
}

fn dialect(schema: &Value) -> Result<(), String> {
    let Some(named) = schema.get("$schema") else { return Ok(()) };
    let known = named.as_str().is_some_and(|named| {
        let named = named.trim_end_matches('#');
        let rest = named.strip_prefix("https://").or_else(|| named.strip_prefix("http://"));
        let rest = rest.and_then(|rest| rest.strip_prefix("json-schema.org/"));
        rest.is_some_and(|rest| {
            DIALECTS
                .iter()
                .any(|known| rest == *known || rest.strip_prefix("draft/") == Some(known))
        })
    });
    if known {
        Ok(())
    } else {
        Err("\"$schema\" must name JSON Schema 2020-12, 2019-09, draft 7 or draft 6".to_owned())
    }
}

/// A reader that numbers the parts of a schema in the order in which it reaches
/// them.
struct Reader<'a> {
    root: &'a Value,
    numbers: HashMap<*const Value, usize>,
    found: Vec<&'a Value>,
    patterns: usize,
}

impl<'a> Reader<'a> {
    fn read(root: &'a Value) -> Result<(Vec<Part>, usize), String> {
        let mut reader = Reader { root, numbers: HashMap::new(), found: Vec::new(), patterns: 0 };
        reader.number(root);
        let mut parts = Vec::new();
        while let Some(&schema) = reader.found.get(parts.len()) {
            parts.push(reader.part(schema)?);
            if reader.found.len() > MAX_PARTS {
                return Err(format!("the schema has more than {MAX_PARTS} parts"));
            }
            if reader.patterns > MAX_PATTERNS {
                return Err(format!("the schema has more than {MAX_PATTERNS} patterns"));
            }
        }
        Ok((parts, reader.patterns))
    }

    fn number(&mut self, schema: &'a Value) -> usize {
        let next = self.found.len();
        let number = *self.numbers.entry(std::ptr::from_ref(schema)).or_insert(next);
        if number == next {
            self.found.push(schema);
        }
        number
    }

    fn part(&mut self, schema: &'a Value) -> Result<Part, String> {
        let Value::Object(map) = schema else {
            return Ok(Part { weight: 1, factor: 1, ..Part::default() });
        };
        self.refuse(schema, map)?;
        let unevaluated =
            map.contains_key("unevaluatedProperties") || map.contains_key("unevaluatedItems");
        let mut part = Part {
            weight: self.weight(map),
            factor: if unevaluated { 2 } else { 1 },
            ..Part::default()
        };
        if let Some(target) = map.get("$ref") {
            let target = self.target(target)?;
            part.same_value.push(self.number(target));
        }
        for key in [
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "if",
            "then",
            "else",
            "dependentSchemas",
            "dependencies",
        ] {
            part.same_value.extend(self.subschemas(map, key));
        }
        if let Some(Value::Object(named)) = map.get("properties") {
            part.properties =
                named.iter().map(|(name, schema)| (name.clone(), self.number(schema))).collect();
        }
        for key in ["patternProperties", "propertyNames", "unevaluatedProperties"] {
            part.any_member.extend(match key {
                "patternProperties" => self.subschemas(map, key),
                _ => self.subschema(map, key),
            });
        }
        part.other_members = self.subschema(map, "additionalProperties");
        for key in ["contains", "additionalItems", "unevaluatedItems"] {
            part.elements.extend(self.subschema(map, key));
        }
        part.first = self.subschemas(map, "prefixItems");
        match map.get("items") {
            Some(Value::Array(_)) => part.first = self.subschemas(map, "items"),
            Some(_) => part.elements.extend(self.subschema(map, "items")),
            None => {}
        }
        Ok(part)
    }

    /// Returns the subschema of a keyword that takes one schema.
    fn subschema(&mut self, map: &'a Map<String, Value>, key: &str) -> Vec<usize> {
        map.get(key).map(|schema| self.number(schema)).into_iter().collect()
    }

    /// Returns the subschemas of a keyword: those in its list, those in its map
    /// if the keyword takes one, else its one schema.
    fn subschemas(&mut self, map: &'a Map<String, Value>, key: &str) -> Vec<usize> {
        let by_name = matches!(key, "dependentSchemas" | "dependencies" | "patternProperties");
        match map.get(key) {
            None => Vec::new(),
            Some(Value::Array(list)) => list.iter().map(|schema| self.number(schema)).collect(),
            Some(Value::Object(named)) if by_name => {
                named.values().map(|schema| self.number(schema)).collect()
            }
            Some(schema) => vec![self.number(schema)],
        }
    }

    fn refuse(&self, schema: &Value, map: &Map<String, Value>) -> Result<(), String> {
        if let Some(key) = REFUSED_KEYWORDS.iter().find(|key| map.contains_key(**key)) {
            return Err(format!("{key:?} is not supported; refer by \"$ref\" to \"#/$defs/...\""));
        }
        if map.contains_key("$id") && !std::ptr::eq(schema, self.root) {
            return Err("\"$id\" is supported at the top of a schema only".to_owned());
        }
        Ok(())
    }

    fn target(&self, target: &Value) -> Result<&'a Value, String> {
        let text = target.as_str().ok_or("\"$ref\" must be a string")?;
        let pointer =
            text.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let pointer = pointer.filter(|pointer| !pointer.contains('%'));
        let Some(pointer) = pointer else {
            return Err(format!(
                "the reference {} leads out of the schema; only places within it can be referred \
                 to, as in \"#/$defs/Name\"",
                quoted(text)
            ));
        };
        self.root
            .pointer(pointer)
            .ok_or_else(|| format!("the reference {} leads to nothing in the schema", quoted(text)))
    }

    /// Computes the steps of one part's keywords, for each unit of a value's
    /// size.
    fn weight(&mut self, map: &Map<String, Value>) -> u64 {
        let patterns = u64::from(map.contains_key("pattern"))
            + map
                .get("patternProperties")
                .and_then(Value::as_object)
                .map_or(0, |map| map.len() as u64);
        self.patterns += patterns as usize;
        let listed = ["enum", "const", "required", "dependentRequired"];
        let listed: u64 = listed.iter().filter_map(|key| map.get(*key)).map(size_of_all).sum();
        let unique = u64::from(map.get("uniqueItems") == Some(&Value::Bool(true)));
        let multiple = u64::from(map.contains_key("multipleOf"));
        1 + listed + patterns * PATTERN_STEPS + unique * UNIQUE_STEPS + multiple * MULTIPLE_STEPS
    }
}
