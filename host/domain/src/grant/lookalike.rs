//! Lookalikes: letters that some servers convert to characters with a meaning in a path. They
//! do so by compatibility normalisation (NFKC), or by the best-fit mapping of an old code page.
//!
//! Not here: how a path with such letters is treated; see [`super::path`].

/// Non-ASCII letters, each with the path characters to which a server may convert it. NFKC
/// first, then the best-fit mappings of Windows and of code pages that have a currency sign in
/// the place of the backslash.
const LOOKALIKES: [(char, &str); 38] = [
    ('\u{ff0e}', "."),
    ('\u{fe52}', "."),
    ('\u{2024}', "."),
    ('\u{2025}', ".."),
    ('\u{fe30}', ".."),
    ('\u{2026}', "..."),
    ('\u{fe19}', "..."),
    ('\u{ff0f}', "/"),
    ('\u{ff3c}', "\\"),
    ('\u{fe68}', "\\"),
    ('\u{ff05}', "%"),
    ('\u{fe6a}', "%"),
    ('\u{ff1b}', ";"),
    ('\u{fe54}', ";"),
    ('\u{fe14}', ";"),
    ('\u{37e}', ";"),
    ('\u{ff1f}', "?"),
    ('\u{fe56}', "?"),
    ('\u{fe16}', "?"),
    ('\u{2047}', "??"),
    ('\u{2048}', "?!"),
    ('\u{2049}', "!?"),
    ('\u{ff03}', "#"),
    ('\u{fe5f}', "#"),
    // Abbreviations with a slash: a/c, a/s, c/o, c/u.
    ('\u{2100}', "a/c"),
    ('\u{2101}', "a/s"),
    ('\u{2105}', "c/o"),
    ('\u{2106}', "c/u"),
    // Best-fit mappings.
    ('\u{3002}', "."),
    ('\u{fe12}', "."),
    ('\u{ff61}', "."),
    ('\u{2044}', "/"),
    ('\u{2215}', "/"),
    ('\u{29f8}', "/"),
    ('\u{2216}', "\\"),
    ('\u{29f5}', "\\"),
    ('\u{a5}', "\\"),
    ('\u{20a9}', "\\"),
];

/// Returns the path characters to which a server may convert a letter, if there are any.
pub fn ascii_equivalent(letter: char) -> Option<&'static str> {
    if letter.is_ascii() {
        return None;
    }
    LOOKALIKES.iter().find(|(known, _)| *known == letter).map(|(_, ascii)| *ascii)
}

/// Returns whether a letter has zero width, so that some servers drop it: joiners, direction
/// marks, variation selectors, tags.
pub fn is_unseen(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lookalike_maps_to_path_characters() {
        for (letter, ascii) in LOOKALIKES {
            assert!(!letter.is_ascii(), "{letter:?}");
            let is_special = |letter: char| r"./\%;?#".contains(letter);
            assert!(ascii.is_ascii() && ascii.chars().any(is_special), "{letter:?}");
        }
    }

    #[test]
    fn letters_with_a_shape_are_seen() {
        assert!("abc äß文件😀-_~".chars().all(|letter| !is_unseen(letter)));
    }
}
