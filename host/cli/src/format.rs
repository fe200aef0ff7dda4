//! Formats values as words and tables for people. Every text from a host goes through
//! [`cell`] or [`crate::sanitize`].

use exosphere_api_types::Pause;

use comfy_table::{Cell, ContentArrangement, Table, presets};

use crate::sanitize;

/// Returns a table without lines, at most as wide as the terminal.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [Cell; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header)
        .add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Returns a table of one row, whose columns are pairs of a heading and a cell.
pub fn record<const N: usize>(columns: [(&str, Cell); N]) -> String {
    let header = columns.each_ref().map(|(heading, _)| *heading);
    table(header, [columns.map(|(_, cell)| cell)])
}

/// Returns a table cell with sanitized text.
pub fn cell(text: impl ToString) -> Cell {
    Cell::new(sanitize::line(&text.to_string()))
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
}
