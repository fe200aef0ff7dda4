//! How many steps a check can take, known before it is begun.
//!
//! A value may be visited by many parts of a schema, and by the same part many
//! times over: two references in an `allOf` that lead back to the whole double
//! the work with every level of the value. So the parts that can be reached are
//! numbered, with what each applies to the same value and to the members below,
//! and the visits are counted, not made.
//!
//! Not here: what the keywords mean. Everything that might apply is taken to.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::Refusal;
use crate::budget::{Budget, StepBudget};
use crate::graph::problems::quoted;

/// The most steps that one check may take: nothing can end it before, so it has to
/// be short, 100 ms.
pub const MAX_STEPS: u64 = 10_000_000;

/// Steps that it takes to reckon one visit of a part to a value.
const RECKONING_STEPS: u64 = 10;

/// Visits that are reckoned before the budget is asked again.
const VISITS_AT_ONCE: u64 = 100;

/// The most parts that a schema may have, counted where they are reached.
pub const MAX_PARTS: usize = 2_000;

/// The most parts that apply to the same value by way of each other.
pub const MAX_CHAIN: usize = 24;

/// The most patterns in a schema.
pub const MAX_PATTERNS: usize = 100;

/// Steps that a pattern takes for each [`CHUNK`] of a text.
const PATTERN_STEPS: u64 = 400;

/// Steps that `uniqueItems` takes for each element, which it hashes whole.
const UNIQUE_STEPS: u64 = 20;

/// Steps that `multipleOf` takes for a number: fractions of any precision.
const MULTIPLE_STEPS: u64 = 1_000;

/// Bytes of a text that count as one step.
const CHUNK: u64 = 64;

/// The dialects in which `$ref` means what it is taken to mean here.
const DIALECTS: [&str; 4] =
    ["2020-12/schema", "2019-09/schema", "draft-07/schema", "draft-06/schema"];

/// Keywords that could lead elsewhere than they seem to.
const REFUSED: [&str; 5] =
    ["$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "$anchor"];

/// What a schema costs.
#[derive(Debug)]
pub struct Cost {
    parts: Vec<Part>,
    /// The place of each part in an order in which parts come before those
    /// that they apply to the same value.
    rank: Vec<usize>,
    /// The part at each such place.
    order: Vec<usize>,
    /// What a value can cost at most for each unit of its size; nothing if the
    /// schema is recursive.
    most: Option<u64>,
    patterns: usize,
}

/// One schema within the schema.
#[derive(Debug, Default)]
struct Part {
    /// Steps, for each unit of the size of a value.
    weight: u64,
    /// What applies to the same value.
    here: Vec<usize>,
    /// How often `here` is gone through.
    times: u64,
    /// What applies to the members of these names.
    properties: BTreeMap<String, usize>,
    /// What may apply to any member.
    any_member: Vec<usize>,
    /// What applies to the members that `properties` does not name.
    other_members: Vec<usize>,
    /// What applies to the first elements.
    first: Vec<usize>,
    /// What may apply to any element.
    elements: Vec<usize>,
}

impl Part {
    fn all(&self) -> impl Iterator<Item = usize> {
        let lists =
            [&self.here, &self.any_member, &self.other_members, &self.first, &self.elements];
        lists.into_iter().flatten().chain(self.properties.values()).copied()
    }
}

/// A count of the steps of a check, and of the visits that it took to count them.
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
        if self.visits.is_multiple_of(VISITS_AT_ONCE) {
            self.budget.take(VISITS_AT_ONCE * RECKONING_STEPS)?;
        }
        if self.steps > MAX_STEPS {
            return Err(Refusal::Misfit(format!(
                "$ takes more than {MAX_STEPS} steps to check against the schema; use a smaller \
                 value or a simpler schema"
            )));
        }
        Ok(())
    }
}

/// Parts that visit a value, and how often each does.
type Visits = BTreeMap<usize, u64>;

impl Cost {
    /// Reckons a schema, or says why it cannot be used.
    pub fn of(schema: &Value) -> Result<Cost, String> {
        dialect(schema)?;
        let (parts, patterns) = Reader::read(schema)?;
        let here = |part: &Part| part.here.clone();
        let Some(order) = sorted(&parts, here) else {
            return Err(
                "the schema refers to itself without going deeper into the value".to_owned()
            );
        };
        if longest_chain(&parts, &order) > MAX_CHAIN {
            return Err(format!(
                "more than {MAX_CHAIN} parts of the schema apply by way of each other"
            ));
        }
        let most = sorted(&parts, |part| part.all().collect()).map(|order| total(&parts, &order));
        let mut rank = vec![0; parts.len()];
        order.iter().enumerate().for_each(|(place, &part)| rank[part] = place);
        Ok(Cost { parts, rank, order, most, patterns })
    }

    /// The number of its parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The number of its patterns.
    pub fn patterns(&self) -> usize {
        self.patterns
    }

    /// Reckons an upper bound of the steps that a check of this value takes. The
    /// reckoning itself takes steps from the budget, those of the check do not.
    ///
    /// # Errors
    /// If the bound is too high to begin, or the budget is exhausted.
    pub fn check(&self, value: &Value, budget: &dyn Budget) -> Result<u64, Refusal> {
        let bound = self.most.map(|most| most.saturating_mul(size_of_all(value)));
        if let Some(bound) = bound.filter(|bound| *bound <= MAX_STEPS) {
            return Ok(bound);
        }
        let mut count = Count { steps: 0, visits: 0, budget };
        self.visit(value, Visits::from([(self.rank[0], 1)]), &mut count)?;
        Ok(count.steps)
    }

    /// Reckons the steps of a check of the smallest value, `{}`.
    pub fn least(&self) -> u64 {
        let unlimited = StepBudget::new(u64::MAX);
        let mut count = Count { steps: 0, visits: 0, budget: &unlimited };
        let empty = Value::Object(Map::new());
        let counted = self.visit(&empty, Visits::from([(self.rank[0], 1)]), &mut count);
        counted.map_or(u64::MAX, |()| count.steps)
    }

    /// Counts the visits to a value and all below.
    fn visit(&self, value: &Value, visits: Visits, count: &mut Count<'_>) -> Result<(), Refusal> {
        let mut open = visits;
        let mut closed = Vec::new();
        while let Some((place, times)) = open.pop_first() {
            let part = &self.parts[self.order[place]];
            count.add(part.weight.saturating_mul(times).saturating_mul(size(value)))?;
            self.add(&mut open, &part.here, times.saturating_mul(part.times));
            closed.push((part, times));
        }
        let mut down = |value: &Value, next: &dyn Fn(&Part, u64, &mut Visits)| {
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
                down(value, &next)
            }),
            Value::Object(map) => map.iter().try_for_each(|(name, value)| {
                let next = |part: &Part, times, visits: &mut Visits| {
                    match part.properties.get(name) {
                        Some(named) => self.add(visits, std::slice::from_ref(named), times),
                        None => self.add(visits, &part.other_members, times),
                    }
                    self.add(visits, &part.any_member, times);
                };
                down(value, &next)
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

/// An optional reference as a slice of none or one.
trait AsSliceOf<T> {
    fn as_slice_of(&self) -> &[T];
}

impl<T> AsSliceOf<T> for Option<&T> {
    fn as_slice_of(&self) -> &[T] {
        self.map_or(&[], std::slice::from_ref)
    }
}

/// What a value counts by itself, without what is below.
fn size(value: &Value) -> u64 {
    let extra = match value {
        Value::String(text) => text.len() as u64 / CHUNK,
        Value::Array(list) => list.len() as u64,
        // Patterns look at names, too.
        Value::Object(map) => map.keys().map(|key| 1 + key.len() as u64 / CHUNK).sum(),
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

/// The parts in an order in which each comes before those it leads to; nothing
/// if some lead back.
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
        for &to in &parts[part].here {
            chain[to] = chain[to].max(chain[part] + 1);
        }
    }
    chain.into_iter().max().unwrap_or(0)
}

/// The weights of all ways through a schema that is not recursive.
fn total(parts: &[Part], order: &[usize]) -> u64 {
    let mut ways = vec![0u64; parts.len()];
    ways[0] = 1;
    let mut sum = 0u64;
    for &part in order {
        sum = sum.saturating_add(ways[part].saturating_mul(parts[part].weight));
        let onward = ways[part].saturating_mul(parts[part].times);
        for to in parts[part].all() {
            ways[to] = ways[to].saturating_add(onward);
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

/// Numbers the parts of a schema as they are reached.
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
            return Ok(Part { weight: 1, times: 1, ..Part::default() });
        };
        self.refuse(schema, map)?;
        let unevaluated =
            map.contains_key("unevaluatedProperties") || map.contains_key("unevaluatedItems");
        let mut part = Part {
            weight: self.weight(map),
            times: if unevaluated { 2 } else { 1 },
            ..Part::default()
        };
        if let Some(target) = map.get("$ref") {
            let target = self.target(target)?;
            part.here.push(self.number(target));
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
            part.here.extend(self.below(map, key));
        }
        if let Some(Value::Object(named)) = map.get("properties") {
            part.properties =
                named.iter().map(|(name, schema)| (name.clone(), self.number(schema))).collect();
        }
        for key in ["patternProperties", "propertyNames", "unevaluatedProperties"] {
            part.any_member.extend(match key {
                "patternProperties" => self.below(map, key),
                _ => self.one(map, key),
            });
        }
        part.other_members = self.one(map, "additionalProperties");
        for key in ["contains", "additionalItems", "unevaluatedItems"] {
            part.elements.extend(self.one(map, key));
        }
        part.first = self.below(map, "prefixItems");
        match map.get("items") {
            Some(Value::Array(_)) => part.first = self.below(map, "items"),
            Some(_) => part.elements.extend(self.one(map, "items")),
            None => {}
        }
        Ok(part)
    }

    /// The one schema under a keyword.
    fn one(&mut self, map: &'a Map<String, Value>, key: &str) -> Vec<usize> {
        map.get(key).map(|schema| self.number(schema)).into_iter().collect()
    }

    /// The schemas under a keyword: in its list, in its map if the keyword
    /// holds one, else itself.
    fn below(&mut self, map: &'a Map<String, Value>, key: &str) -> Vec<usize> {
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
        if let Some(key) = REFUSED.iter().find(|key| map.contains_key(**key)) {
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

    /// What the keywords of one part take, for each unit of a value's size.
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
