//! Charts of text: a row of blocks for values over time, and bars of a histogram.
//!
//! Not here: tables (`format`).

use comfy_table::Table;

/// The blocks of a chart, from the smallest value to the largest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The mark of a place without a value.
const EMPTY: char = ' ';

/// The width of a chart if standard output is not a terminal.
const DEFAULT_WIDTH: usize = 100;

/// The narrowest terminal that a chart is fitted to.
const MIN_WIDTH: usize = 40;

/// Returns the number of columns of the terminal.
pub fn width() -> usize {
    Table::new().width().map_or(DEFAULT_WIDTH, usize::from).max(MIN_WIDTH)
}

/// Draws a block for each value, as high as its part of `max`. A place without a value has the mark
/// of `instead`, if that is given for it.
pub fn blocks(values: &[f64], max: f64, instead: impl Fn(usize) -> Option<char>) -> String {
    let block = |(at, value): (usize, &f64)| {
        if *value <= 0.0 || max <= 0.0 {
            return instead(at).unwrap_or(EMPTY);
        }
        let steps = (value / max * BLOCKS.len() as f64).ceil() as usize;
        BLOCKS[steps.clamp(1, BLOCKS.len()) - 1]
    };
    values.iter().enumerate().map(block).collect()
}

/// Draws a bar of at most `width` blocks, as long as the part of a count in `max`; a count that is
/// not 0 has at least one.
pub fn bar(count: u64, max: u64, width: usize) -> String {
    if count == 0 || max == 0 {
        return String::new();
    }
    let blocks = (count as f64 / max as f64 * width as f64).round() as usize;
    "█".repeat(blocks.clamp(1, width.max(1)))
}

/// Cuts a text to a number of columns, and fills it up to them.
pub fn fit(text: &str, columns: usize) -> String {
    let letters = text.chars().count();
    if letters <= columns {
        return format!("{text}{}", " ".repeat(columns - letters));
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_high_as_values() {
        assert_eq!(blocks(&[0.0, 0.1, 4.0, 8.0], 8.0, |_| None), " ▁▄█");
        assert_eq!(blocks(&[0.0, 0.0], 0.0, |at| (at == 1).then_some('·')), " ·");
        assert_eq!(blocks(&[9.0], 8.0, |_| None), "█");
    }

    #[test]
    fn bars_are_as_long_as_counts() {
        assert_eq!(bar(5, 10, 10).chars().count(), 5);
        assert_eq!(bar(1, 10_000, 10).chars().count(), 1);
        assert_eq!(bar(0, 10, 10), "");
    }

    #[test]
    fn labels_have_one_width() {
        assert_eq!(fit("ab", 4), "ab  ");
        assert_eq!(fit("abcde", 4), "abc…");
        assert_eq!(fit("äöü", 3), "äöü");
    }
}
