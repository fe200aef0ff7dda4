//! JSON numbers as written, and whether a 64-bit integer or a double holds
//! exactly the written value.

use std::fmt::{self, Write};

use serde_json::{Number, Value};

/// The maximum number of significant digits with which every decimal survives conversion to a
/// double and back (`DBL_DIG`), if it lies within [`SAFE_POINTS`].
const SAFE_DIGITS: usize = 15;

/// Positions of the decimal point, counted from the first significant digit,
/// for which a double is neither infinite nor subnormal.
const SAFE_POINTS: std::ops::RangeInclusive<i64> = -300..=300;

/// The maximum number of significant digits in the shortest text of a double.
const MAX_DIGITS: usize = 17;

/// The longest number that a message shows, in bytes. A longer number is not
/// shown at all: its beginning could be that of a secret.
const MAX_SHOWN_BYTES: usize = 40;

/// A number's text, split into the parts of JSON's grammar.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decimal<'t> {
    /// The whole text.
    pub text: &'t str,
    /// The digits before the point.
    pub whole: &'t [u8],
    /// The digits after the point, if there is one.
    pub fraction: &'t [u8],
    /// The digits of the exponent with their sign, if there is one.
    pub exponent: &'t [u8],
    /// True if there is neither point nor exponent.
    pub is_integer: bool,
}

/// The reason why a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inexact {
    /// The number is outside the range of a double.
    OutOfRange,
    /// The number would be rounded to another.
    Rounded,
}

impl Inexact {
    /// Describes the problem. The rounded number is not shown, because it
    /// begins with digits of the written number.
    pub(super) fn message(self, text: &str) -> String {
        let excerpt = if text.len() <= MAX_SHOWN_BYTES {
            format!("the number {text}")
        } else {
            format!("a number of {} characters", text.len())
        };
        match self {
            Inexact::OutOfRange => format!("{excerpt}: number out of range; send it as a string"),
            Inexact::Rounded => format!(
                "{excerpt} would be rounded: no 64-bit integer and no double is written so; \
                 send it as a string"
            ),
        }
    }
}

impl Decimal<'_> {
    fn is_negative(&self) -> bool {
        self.text.starts_with('-')
    }

    /// Returns the value as a 64-bit integer, if it is written as one. Minus
    /// zero is not an integer: only a double can hold it.
    pub(super) fn integer(&self) -> Option<Number> {
        if !self.is_integer {
            return None;
        }
        let digit =
            |number: u64, digit: &u8| number.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        let number = self.whole.iter().try_fold(0, digit)?;
        match (self.is_negative(), number) {
            (false, number) => Some(number.into()),
            (true, 0) => None,
            (true, number) => 0_i64.checked_sub_unsigned(number).map(Number::from),
        }
    }

    /// Checks that a double holds the number exactly as written. For a number
    /// that is not a 64-bit integer.
    pub(super) fn check(&self) -> Result<(), Inexact> {
        let written = Significant::new(self);
        if written.count == 0 {
            return Ok(());
        }
        if self.is_integer {
            return Err(if self.double().is_finite() {
                Inexact::Rounded
            } else {
                Inexact::OutOfRange
            });
        }
        if written.count <= SAFE_DIGITS && SAFE_POINTS.contains(&written.point) {
            return Ok(());
        }
        let double = self.double();
        if !double.is_finite() {
            return Err(Inexact::OutOfRange);
        }
        if written.count > MAX_DIGITS || double == 0.0 {
            return Err(Inexact::Rounded);
        }
        let number = Number::from_f64(double.abs()).ok_or(Inexact::OutOfRange)?;
        // Where two shortest texts are equally near, writers differ.
        let is_shortest = written.equals(format_args!("{number}"))
            || written.equals(format_args!("{:e}", double.abs()));
        if is_shortest { Ok(()) } else { Err(Inexact::Rounded) }
    }

    fn double(&self) -> f64 {
        self.text.parse().unwrap_or(f64::INFINITY)
    }

    /// Returns the nearest double; `None` if it is out of range.
    pub(super) fn rounded(&self) -> Option<Value> {
        Number::from_f64(self.double()).map(Value::Number)
    }
}

/// A buffer on the stack for the shortest text of a double.
struct Shortest {
    bytes: [u8; 32],
    length: usize,
}

impl Write for Shortest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let rest = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        rest.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// The significant digits of a number, without surrounding zeros, and the
/// position of its point after the first of them.
struct Significant<'t> {
    whole: &'t [u8],
    fraction: &'t [u8],
    leading: usize,
    count: usize,
    point: i64,
}

impl Significant<'_> {
    /// Returns whether a positive number, as written, has these digits and its
    /// point at the same position.
    fn equals(&self, number: fmt::Arguments<'_>) -> bool {
        let mut text = Shortest { bytes: [0; 32], length: 0 };
        if text.write_fmt(number).is_err() {
            return false;
        }
        let text = str::from_utf8(&text.bytes[..text.length]).unwrap_or_default();
        let (digits, exponent) = text.split_once('e').unwrap_or((text, ""));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let other = Significant::new(&Decimal {
            text,
            whole: whole.as_bytes(),
            fraction: fraction.as_bytes(),
            exponent: exponent.as_bytes(),
            is_integer: false,
        });
        self.point == other.point && self.digits().eq(other.digits())
    }
}

impl<'t> Significant<'t> {
    fn new(decimal: &Decimal<'t>) -> Self {
        let Decimal { whole, fraction, exponent, .. } = *decimal;
        let is_zero = |digit: &&u8| **digit == b'0';
        let leading = whole.iter().chain(fraction).take_while(is_zero).count();
        let trailing = whole.iter().chain(fraction).rev().take_while(is_zero).count();
        let count = (whole.len() + fraction.len()).saturating_sub(leading + trailing);
        let point = whole.len() as i64 - leading as i64;
        let point = point.saturating_add(saturated(exponent));
        Significant { whole, fraction, leading, count, point }
    }

    fn digits(&self) -> impl Iterator<Item = &u8> {
        self.whole.iter().chain(self.fraction).skip(self.leading).take(self.count)
    }
}

/// Parses an exponent, saturating at the range of 64 bits.
fn saturated(exponent: &[u8]) -> i64 {
    let (is_negative, digits) = match exponent {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let number = digits.iter().fold(0_i64, |number, digit| {
        number.saturating_mul(10).saturating_add(i64::from(digit.wrapping_sub(b'0')))
    });
    if is_negative { -number } else { number }
}
