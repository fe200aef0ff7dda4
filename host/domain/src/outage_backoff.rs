//! Exponential backoff: the pauses of a loop that retries while something is unavailable.
//!
//! Not here: the delays between attempts of a state (`retry`), and the waiting itself.

use std::time::Duration;

/// The pauses of one retry loop: each is twice as long as the one before it, up to a
/// maximum.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Creates a backoff from its first and its longest pause.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, next: first, max }
    }

    /// Returns the next pause without using it up.
    pub fn peek(&self) -> Duration {
        self.next
    }

    /// Returns the next pause, and doubles the one after it.
    pub fn advance(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    /// Begins again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(50), millis(2000));
        let pauses: Vec<_> = (0..8).map(|_| backoff.advance().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        backoff.reset();
        assert_eq!((backoff.peek(), backoff.advance()), (millis(50), millis(50)));
    }
}
