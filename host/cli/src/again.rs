//! The command that continues a list: that of this process, with the cursor of the next page.

use crate::sanitize;

/// Returns the whole next command for a list that was cut. `flag` takes the cursor.
pub fn next_command(flag: &str, cursor: &str) -> String {
    let given = std::env::args_os().skip(1);
    command(given.map(|word| word.to_string_lossy().into_owned()), flag, cursor)
}

fn command(given: impl Iterator<Item = String>, flag: &str, cursor: &str) -> String {
    let with_value = format!("{flag}=");
    let mut words = vec!["exosphere".to_owned()];
    let mut given = given.peekable();
    while let Some(word) = given.next() {
        if word == flag {
            given.next();
        } else if !word.starts_with(&with_value) {
            words.push(word);
        }
    }
    words.extend([flag.to_owned(), cursor.to_owned()]);
    let words: Vec<String> = words.iter().map(|word| quoted(&sanitize::line(word))).collect();
    words.join(" ")
}

/// Quotes a word for a shell, if it needs that.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_repeats_the_given_words() {
        let next = |line: &str| command(line.split(' ').map(str::to_owned), "--after", "0.a~1");
        assert_eq!(
            next("run states latest --status ERRORED"),
            "exosphere run states latest --status ERRORED --after '0.a~1'"
        );
        assert_eq!(
            next("--host http://h:1 run result r --after 3 --limit 5"),
            "exosphere --host http://h:1 run result r --limit 5 --after '0.a~1'"
        );
        assert_eq!(
            next("run result it's --after=3"),
            r"exosphere run result 'it'\''s' --after '0.a~1'"
        );
    }
}
