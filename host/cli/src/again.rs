//! Commands that messages name: they work as they stand, in the same shell.

use exosphere_domain::run_ref::RunRef;

use crate::sanitize;

/// Returns the whole next command for a list that was cut. `flag` takes the cursor.
pub fn next_command(flag: &str, cursor: &str) -> String {
    command(given(), flag, cursor)
}

/// Returns the whole next command for a list of a run, which it names by its id.
pub fn next_command_of((run, id): (&RunRef, &str), flag: &str, cursor: &str) -> String {
    command(with_id(given(), run, id), flag, cursor)
}

/// Returns the words of this command.
fn given() -> impl Iterator<Item = String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned())
}

/// Replaces the first word that means a run, or a state of it, by its id.
fn with_id(
    given: impl Iterator<Item = String>,
    run: &RunRef,
    id: &str,
) -> impl Iterator<Item = String> {
    let mut is_replaced = false;
    given.map(move |word| {
        let (name, rest) = word.split_at(word.find('/').unwrap_or(word.len()));
        if is_replaced || name.parse().ok().as_ref() != Some(run) {
            return word;
        }
        is_replaced = true;
        format!("{id}{rest}")
    })
}

/// Returns another command for the same host and namespace.
pub fn follow_up(words: &[&str]) -> String {
    with_target(given(), words)
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
    fn the_next_command_names_its_run() {
        let next = |line: &str, run: &str| {
            let given = line.split(' ').map(str::to_owned);
            command(with_id(given, &run.parse().unwrap(), "0195-id"), "--after", "0")
        };
        let expected = "exosphere run states 0195-id --node latest --after 0";
        assert_eq!(next("run states latest --node latest", "latest"), expected);
        assert_eq!(
            next("run states 0195 --limit 1", "0195"),
            "exosphere run states 0195-id --limit 1 --after 0"
        );
        assert_eq!(next("run states 0195/a", "0195"), "exosphere run states 0195-id/a --after 0");
        let expected = "exosphere run states 0195-id --after 0";
        assert_eq!(next("run states 0195b7f0-00", "0195b7f000"), expected, "dashes mean nothing");
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
