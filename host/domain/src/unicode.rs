//! Misleading characters: those of an untrusted text that may deceive its
//! reader.
//!
//! Not here: how they are treated. Some are removed, others spelled out.

/// Returns whether a character ends a line for some programs. The line end
/// itself is a control character.
pub fn is_separator(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

/// Returns whether a character is invisible: direction marks, zero-width spaces, variation
/// selectors, tags. A word with such a character looks like a different word. (The property
/// `Default_Ignorable_Code_Point` of Unicode 16, and interlinear annotations.)
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}
