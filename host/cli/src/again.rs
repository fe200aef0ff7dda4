//! Commands that messages name: they work as they stand, in the same shell.

use crate::sanitize;

/// Returns the whole next command for a list that was cut. `flag` takes the cursor.
pub fn next_command(flag: &str, cursor: &str) -> String {
    let given = std::env::args_os().skip(1);
    command(given.map(|word| word.to_string_lossy().into_owned()), flag, cursor)
}

/// Returns another command for the same host and namespace.
pub fn follow_up(words: &[&str]) -> String {
    let given = std::env::args_os().skip(1);
    with_target(given.map(|word| word.to_string_lossy().into_owned()), words)
}

/// The options that name host and namespace. (Those of the environment hold for the next command,
/// too.)
const TARGET: [&str; 2] = ["--host", "--namespace"];

fn with_target(mut given: impl Iterator<Item = String>, words: &[&str]) -> String {
    let mut all = vec!["exosphere".to_owned()];
    all.extend(words.iter().map(|word| (*word).to_owned()));
    while let Some(word) = given.next() {
        if TARGET.contains(&word.as_str()) {
            all.push(word);
            all.extend(given.next());
        } else if TARGET.iter().any(|option| word.starts_with(&format!("{option}="))) {
            all.push(word);
        }
    }
    joined(&all)
}

fn joined(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(&sanitize::line(word))).collect();
    words.join(" ")
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
    joined(&words)
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
    fn a_follow_up_keeps_host_and_namespace() {
        let given = ["run", "show", "--host", "h:1", "r", "--namespace=team", "--json"];
        let given = given.into_iter().map(str::to_owned);
        let command = with_target(given, &["run", "outputs", "r/a[1]", "--all"]);
        assert_eq!(command, "exosphere run outputs 'r/a[1]' --all --host h:1 --namespace=team");
    }

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
