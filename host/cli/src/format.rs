//! Formats values as words and tables for people. Every text from a host goes through
//! [`cell`] or [`crate::sanitize`].

use exosphere_api_types::Pause;

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};

use crate::sanitize;

/// The headings of columns whose values people copy: they never wrap, and other columns give way.
const UNWRAPPED: [&str; 7] = ["RUN", "STATE", "DIGEST", "PATH", "ID", "KEY", "OBJECT"];

/// The longest word in a column of statuses, which is not broken.
const LONGEST_STATUS: &str = "CANCELLED";

/// The narrowest terminal for which columns are wrapped. A narrower one, also one that reports a
/// width of 0, wraps lines itself.
const MIN_WRAPPED_WIDTH: u16 = 20;

/// The space after each column.
const PADDING: u16 = 2;

/// Returns a table without lines, at most as wide as the terminal if that has room for the columns
/// that never wrap.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    let terminal = table.width();
    arrange(&mut table, &header, terminal)
}

/// Formats a table for a terminal.
fn arrange(table: &mut Table, header: &[&str], terminal: Option<u16>) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, PADDING));
    }
    match terminal.filter(|width| *width >= MIN_WRAPPED_WIDTH) {
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            for (column, heading) in table.column_iter_mut().zip(header) {
                column.set_constraint(if UNWRAPPED.contains(heading) {
                    ColumnConstraint::ContentWidth
                } else {
                    let word = if *heading == "STATUS" { LONGEST_STATUS } else { heading };
                    let heading = u16::try_from(word.len()).unwrap_or(u16::MAX);
                    ColumnConstraint::LowerBoundary(Width::Fixed(heading.saturating_add(PADDING)))
                });
            }
        }
    }
    table.trim_fmt()
}

/// Returns a table of one row, whose columns are pairs of a heading and a cell. If the terminal is
/// too narrow for it, the pairs stand below each other.
pub fn record<const N: usize>(columns: [(&str, Cell); N]) -> String {
    let terminal = Table::new().width();
    arrange_record(columns, terminal)
}

fn arrange_record<const N: usize>(columns: [(&str, Cell); N], terminal: Option<u16>) -> String {
    let header = columns.each_ref().map(|(heading, _)| *heading);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table.add_row(columns.clone().map(|(_, cell)| cell));
    let widths = table.column_max_content_widths();
    let width = widths.iter().fold(0u16, |sum, width| sum.saturating_add(width + PADDING));
    if terminal.is_none_or(|terminal| width <= terminal) {
        return arrange(&mut table, &header, terminal);
    }
    let mut below = Table::new();
    below.load_style(presets::NOTHING);
    below.add_rows(columns.map(|(heading, cell)| [Cell::new(heading), cell]));
    // The values are short, and one of them is the id.
    arrange(&mut below, &[], None)
}

/// Returns a table cell with sanitized text.
pub fn cell(text: impl ToString) -> Cell {
    Cell::new(sanitize::line(&text.to_string()))
}

/// Returns a table cell with sanitized text, whose line ends stay.
pub fn text_cell(text: &str) -> Cell {
    if text.is_empty() { Cell::new("-") } else { Cell::new(sanitize::lines(text.trim_end())) }
}

/// Returns a table cell that shows a missing or an empty text as a dash.
pub fn optional_cell(text: Option<impl ToString>) -> Cell {
    match text.map(|text| text.to_string()) {
        Some(text) if !text.is_empty() => cell(text),
        _ => Cell::new("-"),
    }
}

/// Returns a table cell with the time that a run or a state took, once it has ended.
pub fn elapsed(created_at: i64, ended_at: Option<i64>) -> Cell {
    optional_cell(ended_at.map(|end| duration(end.saturating_sub(created_at))))
}

/// Returns the first 12 digits of a digest, enough for people to compare.
pub fn digest(digest: &str) -> String {
    digest.chars().take(12).collect()
}

/// Formats a number of bytes.
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// Formats a duration in milliseconds.
pub fn duration(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        ms @ 60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
        ms => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Formats a CPU time in microseconds.
pub fn cpu_time(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1_000.0),
        _ => duration(i64::try_from(us / 1_000).unwrap_or(i64::MAX)),
    }
}

/// Formats a pause: `paused since 2026-01-01 00:00:00Z by ada: the index is rebuilt`.
pub fn paused(pause: &Pause) -> String {
    let by = pause.by.as_ref().map(|by| format!(" by {}", sanitize::line(by)));
    let reason = Some(&pause.reason).filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(": {}", sanitize::line(reason)));
    let (by, reason) = (by.unwrap_or_default(), reason.unwrap_or_default());
    format!("paused since {}{by}{reason}", utc(pause.since))
}

/// Formats a time (milliseconds since 1970) in UTC, to the second.
pub fn utc(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Formats the time of day of a time (milliseconds since 1970) in UTC, to the millisecond.
pub fn time_of_day(ms: i64) -> String {
    let (seconds, ms) = (ms.div_euclid(1_000).rem_euclid(86_400), ms.rem_euclid(1_000));
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// Returns the date of a day counted from 1970-01-01. Years begin in March, so that the leap
/// day is the last of a year. They are counted in spans of 400 years, which all have the same
/// length.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    const MARCH_OF_YEAR_0: i64 = -719_468;
    let days = days - MARCH_OF_YEAR_0;
    let day = days.rem_euclid(DAYS_PER_400_YEARS);
    // Leap days before this day: one in 4 years, none in 100.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // March to July and August to December have 153 days each.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + 400 * days.div_euclid(DAYS_PER_400_YEARS);
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
            (951_782_400_000, "2000-02-29 00:00:00Z"),
            (951_868_799_999, "2000-02-29 23:59:59Z"),
            (4_107_542_400_000, "2100-03-01 00:00:00Z"),
            (1_709_251_199_000, "2024-02-29 23:59:59Z"),
            (1_735_689_599_000, "2024-12-31 23:59:59Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
        // A hostile host's number must not crash the client.
        utc(i64::MIN);
        utc(i64::MAX);
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        let all = [-5, 999, 1_500, 61_000, 3_720_000].map(duration);
        assert_eq!(all, ["0 ms", "999 ms", "1.5 s", "1 min 1 s", "1 h 2 min"]);
    }

    #[test]
    fn table_cells_are_sanitized() {
        let table = table(
            ["NAME", "N"],
            [[cell("a\u{1b}[31m\nb"), cell(7)], [optional_cell(None::<u8>), cell(10)]],
        );
        assert_eq!(table, "NAME            N\na\\u{1b}[31m\\nb  7\n-               10");
    }

    #[test]
    fn line_ends_of_descriptions_stay() {
        let table = table(["NODE", "DESCRIPTION"], [[cell("n"), text_cell("one\ntwo\u{7}\n")]]);
        assert_eq!(table, "NODE  DESCRIPTION\nn     one\n      two\\u{7}");
    }

    const RUN: &str = "0195b7f0-0000-7000-8000-000000000001";

    #[test]
    fn ids_never_wrap() {
        for terminal in [Some(80), Some(40), Some(0), None] {
            let header = ["RUN", "GRAPH", "STATUS", "STATES", "STARTED", "FAILURE"];
            let mut table = Table::new();
            table.load_style(presets::NOTHING).set_header(header).add_row([
                cell(RUN),
                cell("a-graph-with-a-long-name:12"),
                cell("SUCCESS (3 errored, absorbed)"),
                cell(1_000_000),
                cell(utc(0)),
                cell("retryable: ".repeat(20)),
            ]);
            let text = arrange(&mut table, &header, terminal);
            assert!(text.lines().any(|line| line.starts_with(RUN)), "{terminal:?}:\n{text}");
            assert!(text.lines().next().unwrap().contains("STATUS"), "{terminal:?}:\n{text}");
            let columns =
                || [("RUN", cell(RUN)), ("GRAPH", cell("g:1")), ("STATUS", cell("FAILED"))];
            let text = arrange_record(columns(), terminal);
            assert!(text.contains(RUN), "{terminal:?}:\n{text}");
        }
    }

    #[test]
    fn other_columns_give_way() {
        let mut table = Table::new();
        let header = ["RUN", "FAILURE"];
        table.load_style(presets::NOTHING).set_header(header);
        table.add_row([cell(RUN), cell("word ".repeat(40))]);
        let text = arrange(&mut table, &header, Some(60));
        assert!(text.lines().count() > 5 && text.lines().all(|line| line.len() <= 60), "{text}");
    }
}
