//! Bytes, counts and times as a person reads them.
//!
//! Comes in: numbers. Goes out: short text: binary units with one decimal, digits in groups of three, two units of
//! time. Never: a number that is exact only by looks; exact bytes are written with [`grouped`] beside it.

use std::time::Duration;

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { scaled(bytes as f64) }
}

/// `34.1 KiB/s`, `-0.5 B/s`.
pub(super) fn bytes_per_second(rate: f64) -> String {
    let sign = if rate < 0.0 { "-" } else { "" };
    format!("{sign}{}/s", scaled(rate.abs()))
}

fn scaled(value: f64) -> String {
    let mut value = value;
    let mut unit = 0;
    // What would round to 1024.0 is 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `+1.5 MiB`.
pub(super) fn signed_bytes(change: i64) -> String {
    let sign = if change < 0 { '-' } else { '+' };
    format!("{sign}{}", bytes(change.unsigned_abs()))
}

/// `1,048,576`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `+1,024`.
pub(super) fn signed(change: i64) -> String {
    let sign = if change < 0 { '-' } else { '+' };
    format!("{sign}{}", grouped(change.unsigned_abs()))
}

/// `850 ms`, `29.8 s`, `2 m 05 s`, `3 h 07 m`, `2 d 03 h`.
pub(super) fn duration(nanoseconds: u64) -> String {
    let time = Duration::from_nanos(nanoseconds);
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_millis() as f64 / 1e3),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `41.2%`; `0.0%` of nothing.
pub(super) fn share(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 };
    format!("{percent:.1}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_binary_units_and_no_1024_of_any() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (1024 * 1024, "1.0 MiB"),
            (13_107_200, "12.5 MiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes_per_second(34_918.4), "34.1 KiB/s");
        assert_eq!(bytes_per_second(-0.5), "-0.5 B/s");
        assert_eq!(signed_bytes(-2048), "-2.0 KiB");
        assert_eq!(signed_bytes(0), "+0 B");
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_048_576, "1,048,576")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(signed(-1024), "-1,024");
    }

    #[test]
    fn times_have_two_units() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.85, "850 ms"),
            (29.84, "29.8 s"),
            (125.0, "2 m 05 s"),
            (11_220.0, "3 h 07 m"),
            (183_600.0, "2 d 03 h"),
        ] {
            assert_eq!(duration((seconds * 1e9) as u64), text);
        }
    }

    #[test]
    fn shares_of_nothing_are_nothing() {
        assert_eq!(share(1, 3), "33.3%");
        assert_eq!(share(0, 0), "0.0%");
    }
}
