//! The reason that a caller gives for a change, for people who find it later: of a pause, of a bulk
//! operation.
//!
//! Not here: the reasons of problems that the API answers (`reason`).

/// The longest reason, in characters.
pub(crate) const MAX_REASON_CHARS: usize = 500;

/// Checks a reason, which is one line.
///
/// # Errors
///
/// The rule that it breaks, in words.
pub fn check_reason(reason: &str) -> Result<(), String> {
    if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
        return Err(format!(
            "use at most {MAX_REASON_CHARS} characters, none of them a control character"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(check_reason(""), Ok(()));
        assert_eq!(check_reason(&"ü".repeat(MAX_REASON_CHARS)), Ok(()));
        for reason in ["ü".repeat(MAX_REASON_CHARS + 1), "a\nb".to_owned()] {
            assert!(check_reason(&reason).is_err(), "{reason}");
        }
    }
}
