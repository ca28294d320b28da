//! Durations and sizes as people type them.
//!
//! Comes in: one argument's text, such as `30s` or `64MiB`. Goes out: a [`Duration`] or bytes, or an error that
//! shows what would have been right. Never: guesses a unit.

use std::time::Duration;

/// Why a duration or a size can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's text names its fields")]
pub enum UnitError {
    /// No number stands first.
    #[error("`{text}` does not start with a number; write for example {example}")]
    NoNumber { text: String, example: &'static str },
    /// The number alone does not say how long.
    #[error("`{text}` has no unit; write for example {text}s (units: ms, s, m, h)")]
    NoUnit { text: String },
    /// A unit that does not exist.
    #[error("unknown unit `{unit}`; units are {units}")]
    UnknownUnit { unit: String, units: &'static str },
    /// More than the type holds.
    #[error("`{text}` is too large")]
    TooLarge { text: String },
}

const DURATION_UNITS: &str = "ms, s, m, h";
const SIZE_UNITS: &str = "KiB, MiB, GiB (powers of 1024); a number alone is bytes";

/// Up to here a double counts every byte; a size beyond it is a typing error.
const LARGEST_SIZE: f64 = (1u64 << 53) as f64;

/// Reads `500ms`, `30s`, `1.5m`, `2h` or `0`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text, "30s")?;
    let seconds = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "" if number == 0.0 => 1.0,
        "" => return Err(UnitError::NoUnit { text: text.to_owned() }),
        unit => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units: DURATION_UNITS }),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| UnitError::TooLarge { text: text.to_owned() })
}

/// Reads `4096`, `512KiB`, `64MiB` or `1.5GiB`; bytes, rounded down.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text, "64MiB")?;
    let scale: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(UnitError::UnknownUnit { unit: unit.to_owned(), units: SIZE_UNITS }),
    };
    match number * scale as f64 {
        bytes if bytes <= LARGEST_SIZE => Ok(bytes as u64),
        _ => Err(UnitError::TooLarge { text: text.to_owned() }),
    }
}

/// The number in front, and what follows it.
fn split<'t>(text: &'t str, example: &'static str) -> Result<(f64, &'t str), UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| UnitError::NoNumber { text: text.to_owned(), example })?;
    Ok((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("500ms", Duration::from_millis(500)),
            ("30s", Duration::from_secs(30)),
            ("1.5s", Duration::from_millis(1500)),
            ("2m", Duration::from_mins(2)),
            ("1h", Duration::from_hours(1)),
            ("5 m", Duration::from_mins(5)),
            ("0", Duration::ZERO),
            ("0ms", Duration::ZERO),
        ] {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("1KiB", 1024),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("0.3KiB", 307),
        ] {
            assert_eq!(size(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let message = |error: UnitError| error.to_string();
        assert_eq!(
            message(duration("30").unwrap_err()),
            "`30` has no unit; write for example 30s (units: ms, s, m, h)"
        );
        assert_eq!(
            message(duration("soon").unwrap_err()),
            "`soon` does not start with a number; write for example 30s"
        );
        assert_eq!(message(duration("3d").unwrap_err()), "unknown unit `d`; units are ms, s, m, h");
        assert_eq!(
            message(size("64MB").unwrap_err()),
            "unknown unit `MB`; units are KiB, MiB, GiB (powers of 1024); a number alone is bytes"
        );
        assert_eq!(message(size("99999999GiB").unwrap_err()), "`99999999GiB` is too large");
    }

    #[test]
    fn what_floats_would_take_is_refused() {
        for text in ["", "-1s", "inf", "nan", "1e3s", ".", "1.2.3s", "+5s", "s"] {
            assert!(duration(text).is_err(), "{text}");
            assert!(size(text).is_err(), "{text}");
        }
        assert!(matches!(duration("99999999999999999999h"), Err(UnitError::TooLarge { .. })));
    }
}
