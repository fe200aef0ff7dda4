//! Mutation: random values, and random changes to bytes and JSON.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};

/// A random generator and mutator with a seed.
#[derive(Debug)]
pub struct Mutator(StdRng);

/// Numbers near thresholds.
const NUMBERS: [i64; 12] =
    [0, 1, -1, 2, 63, 64, 65, 500, 501, i64::MAX, i64::MIN, 9_007_199_254_740_993];

/// Texts near thresholds.
const TEXTS: [&str; 24] = [
    "",
    "$",
    "${{",
    "}}",
    "$${{",
    "${{ }}",
    "${{ a.outputs }}",
    "${{ a.outputs.b }}",
    "${{ store.key }}",
    "${{ unite.branches }}",
    "x${{ a.outputs.b.0.c }}y",
    "store",
    "unite",
    "ALL_DONE",
    "50%",
    "\u{0}",
    "\u{1b}[31m",
    "\u{202e}",
    "ä",
    "\u{10ffff}",
    "a.b",
    "../..",
    "1e999",
    "0123456789012345678901234567890123456789012345678901234567890123456789",
];

/// Keys that have a meaning in some JSON.
const KEYS: [&str; 16] = [
    "nodes",
    "identifier",
    "node_name",
    "next_nodes",
    "inputs",
    "unites",
    "retry_policy",
    "store_config",
    "secrets",
    "triggers",
    "limits",
    "plugin",
    "namespace",
    "timeout_ms",
    "strategy",
    "on_empty",
];

impl Mutator {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator(StdRng::seed_from_u64(seed))
    }

    /// Returns a number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// Returns true once in `times` times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Returns an element of a list.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let at = self.below(items.len());
        &items[at]
    }

    /// Returns `count` random bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Mutates bytes a few times: flips bits, and removes, doubles or replaces pieces.
    pub fn mutate_bytes(&mut self, bytes: &mut Vec<u8>, donor: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + self.below(64)).min(bytes.len());
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => {
                    let from = self.below(donor.len());
                    let to = (from + self.below(4096)).min(donor.len());
                    bytes.splice(at..end, donor[from..to].iter().copied());
                }
                4 => {
                    let piece = self.bytes(end - at);
                    bytes.splice(at..end, piece);
                }
                _ if bytes.is_empty() => {}
                5 => bytes[at] = *self.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                _ => bytes[at] ^= 1 << self.below(8),
            }
        }
    }

    /// Draws a JSON value of up to `depth` levels.
    pub fn random_json(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => json!(self.once_in(2)),
            2 => json!(self.pick(&NUMBERS)),
            3 => json!(self.below(100) as f64 / 7.0),
            4 | 5 => json!(self.pick(&TEXTS)),
            6 => (0..self.below(4)).map(|_| self.random_json(depth - 1)).collect(),
            _ => {
                let mut map = serde_json::Map::new();
                for _ in 0..self.below(4) {
                    map.insert((*self.pick(&KEYS)).to_owned(), self.random_json(depth - 1));
                }
                Value::Object(map)
            }
        }
    }

    /// Mutates a few parts of a JSON value.
    pub fn mutate_json(&mut self, value: &mut Value, donor: &Value) {
        let strings = strings(value);
        for _ in 0..=self.below(3) {
            let mut at = self.below(size(value));
            let piece = match self.below(3) {
                0 => self.random_json(3),
                1 => nth(donor, self.below(size(donor))).clone(),
                _ => nth(value, self.below(size(value))).clone(),
            };
            if let Some(place) = nth_mut(value, &mut at) {
                self.mutate_here(place, piece, &strings);
            }
        }
    }

    fn mutate_here(&mut self, place: &mut Value, piece: Value, strings: &[String]) {
        let choice = self.below(8);
        match place {
            Value::String(text) if choice < 3 && !strings.is_empty() => {
                *text = self.pick(strings).clone();
            }
            Value::String(text) if choice < 5 => {
                let at = text.floor_char_boundary(self.below(text.len() + 1));
                let piece: &&str = self.pick(&TEXTS);
                text.insert_str(at, piece);
            }
            Value::Array(list) if choice < 2 => {
                let at = self.below(list.len());
                if at < list.len() {
                    list.remove(at);
                }
            }
            Value::Array(list) if choice < 5 && list.len() < 64 => {
                let at = self.below(list.len() + 1);
                list.insert(at, piece);
            }
            Value::Object(map) if choice < 3 => {
                let at = self.below(map.len());
                if let Some(key) = map.keys().nth(at).cloned() {
                    map.remove(&key);
                }
            }
            Value::Object(map) if choice < 5 => {
                let key =
                    if self.once_in(2) { (*self.pick(&KEYS)).to_owned() } else { key_of(&piece) };
                map.insert(key, piece);
            }
            _ if choice == 7 => {
                let inner = place.take();
                *place = if self.once_in(2) { json!([inner]) } else { json!({"x": inner}) };
            }
            _ => *place = piece,
        }
    }
}

fn key_of(value: &Value) -> String {
    value.as_str().map_or_else(|| "key".to_owned(), str::to_owned)
}

/// Returns all texts of a value that are not keys.
fn strings(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = vec![value];
    while let Some(value) = rest.pop() {
        match value {
            Value::String(text) => all.push(text.clone()),
            Value::Array(list) => rest.extend(list),
            Value::Object(map) => rest.extend(map.values()),
            _ => {}
        }
    }
    all
}

/// Returns the number of values in a value, itself included.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum::<usize>(),
        _ => 0,
    }
}

fn nth(value: &Value, at: usize) -> &Value {
    let mut rest = vec![value];
    let mut passed = 0;
    while let Some(value) = rest.pop() {
        if passed == at {
            return value;
        }
        passed += 1;
        match value {
            Value::Array(list) => rest.extend(list),
            Value::Object(map) => rest.extend(map.values()),
            _ => {}
        }
    }
    value
}

fn nth_mut<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|value| nth_mut(value, at)),
        Value::Object(map) => map.values_mut().find_map(|value| nth_mut(value, at)),
        _ => None,
    }
}
