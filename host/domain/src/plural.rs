//! Numbers with their nouns: `1 run`, `2 runs`.

use std::fmt::Display;

/// Returns a number with its noun, in the singular or the plural.
pub fn counted(number: u64, one: impl Display, many: impl Display) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_is_singular() {
        let entries = [0, 1, 2].map(|number| counted(number, "entry", "entries"));
        assert_eq!(entries, ["0 entries", "1 entry", "2 entries"]);
    }
}
