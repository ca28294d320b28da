//! Glob patterns over a task's comm, compiled so that the kernel side matches them without branches.
//!
//! Comes in: a pattern (`*`, `?`, `[a-z]`, `[!a-z]`, `\x`). Goes out: a bit automaton (shift-and): one bit per
//! pattern position, at most 31. Never: a pattern that matches differently in the kernel and in the agent:
//! both run [`CommPattern::matches`].

use crate::limits::COMM_LEN;

/// A compiled pattern: 1,032 bytes, a map value.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommPattern {
    /// For each byte, the positions that it advances.
    advance: [u32; 256],
    /// Positions that any byte leaves where they are (a `*` stands before them).
    stay: u32,
    /// The bit that is set when all positions have matched.
    accept: u32,
}

/// Why a pattern does not compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing to match.
    Empty,
    /// More than 31 positions; a comm has at most 15 bytes.
    TooLong,
    /// A `[` without its `]`.
    OpenClass,
    /// A `\` at the end.
    TrailingEscape,
}

impl core::fmt::Display for PatternError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Empty => "the pattern is empty",
            Self::TooLong => "the pattern has more than 31 positions; a comm has at most 15 bytes",
            Self::OpenClass => "a `[` has no closing `]`",
            Self::TrailingEscape => "nothing follows the `\\`",
        })
    }
}

impl core::error::Error for PatternError {}

impl CommPattern {
    /// A pattern that matches nothing.
    pub const NONE: Self = Self { advance: [0; 256], stay: 0, accept: 0 };

    /// Compiles a pattern.
    pub fn new(pattern: &[u8]) -> Result<Self, PatternError> {
        if pattern.is_empty() {
            return Err(PatternError::Empty);
        }
        let mut compiled = Self::NONE;
        let mut position = 0u32;
        let mut rest = pattern;
        while let [byte, tail @ ..] = rest {
            rest = tail;
            if *byte == b'*' {
                compiled.stay |= 1 << position;
                continue;
            }
            if position == 31 {
                return Err(PatternError::TooLong);
            }
            let bit = 1 << position;
            match byte {
                b'?' => compiled.advance.iter_mut().for_each(|a| *a |= bit),
                b'[' => rest = compiled.class(rest, bit)?,
                b'\\' => {
                    let [escaped, tail @ ..] = rest else { return Err(PatternError::TrailingEscape) };
                    rest = tail;
                    compiled.advance[usize::from(*escaped)] |= bit;
                }
                literal => compiled.advance[usize::from(*literal)] |= bit,
            }
            position += 1;
        }
        compiled.accept = 1 << position;
        Ok(compiled)
    }

    /// Compiles what follows a `[`; returns what follows its `]`.
    fn class<'p>(&mut self, class: &'p [u8], bit: u32) -> Result<&'p [u8], PatternError> {
        let (negated, body) = match class {
            [b'!' | b'^', body @ ..] => (true, body),
            body => (false, body),
        };
        // A `]` that stands first is a member.
        let end = body.iter().skip(1).position(|b| *b == b']').ok_or(PatternError::OpenClass)? + 1;
        let (mut members, rest) = (&body[..end], &body[end + 1..]);
        let mut set = [false; 256];
        loop {
            members = match members {
                [low, b'-', high, tail @ ..] => {
                    (*low..=*high).for_each(|b| set[usize::from(b)] = true);
                    tail
                }
                [one, tail @ ..] => {
                    set[usize::from(*one)] = true;
                    tail
                }
                [] => break,
            };
        }
        for (byte, member) in set.iter().enumerate() {
            if *member != negated {
                self.advance[byte] |= bit;
            }
        }
        Ok(rest)
    }

    /// Whether a comm, NUL-padded to [`COMM_LEN`], matches as a whole.
    #[inline(always)]
    pub fn matches(&self, comm: &[u8; COMM_LEN]) -> bool {
        let mut states = 1u32;
        let mut matched = 0u32;
        let mut running = u32::MAX;
        let mut i = 0;
        while i < COMM_LEN {
            let byte = comm[i];
            // At the terminating NUL the states are final; what follows it must not move them.
            let at_end = if byte == 0 { u32::MAX } else { 0 };
            matched |= states & self.accept & at_end & running;
            running &= !at_end;
            states = ((states & self.advance[byte as usize]) << 1) | (states & self.stay);
            i += 1;
        }
        matched != 0
    }
}

/// A comm as the kernel keeps it: at most 15 bytes, NUL-padded.
pub fn comm_bytes(name: &[u8]) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    let n = if name.len() < COMM_LEN { name.len() } else { COMM_LEN - 1 };
    comm[..n].copy_from_slice(&name[..n]);
    comm
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, comm: &str) -> bool {
        CommPattern::new(pattern.as_bytes()).unwrap().matches(&comm_bytes(comm.as_bytes()))
    }

    #[test]
    fn literals_wildcards_and_classes() {
        for (pattern, comm, expected) in [
            ("redis-server", "redis-server", true),
            ("redis-server", "redis-serverx", false),
            ("redis-server", "redis-serve", false),
            ("redis*", "redis-server", true),
            ("redis*", "redis", true),
            ("*", "anything", true),
            ("**", "x", true),
            ("?", "x", true),
            ("?", "xy", false),
            ("*server", "redis-server", true),
            ("*er*er", "server-er", true),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXcYYb", false),
            ("worker-[0-9]", "worker-7", true),
            ("worker-[0-9]", "worker-x", false),
            ("worker-[!0-9]", "worker-x", true),
            ("[]]", "]", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("kworker/0:1", "kworker/0:1", true),
        ] {
            assert_eq!(matches(pattern, comm), expected, "{pattern} on {comm}");
        }
    }

    #[test]
    fn a_name_longer_than_a_comm_is_cut_as_the_kernel_cuts_it() {
        assert!(matches("averyveryverylo", "averyveryverylongname"));
    }

    #[test]
    fn bad_patterns_say_why() {
        assert_eq!(CommPattern::new(b""), Err(PatternError::Empty));
        assert_eq!(CommPattern::new(b"[abc"), Err(PatternError::OpenClass));
        assert_eq!(CommPattern::new(b"abc\\"), Err(PatternError::TrailingEscape));
        assert_eq!(CommPattern::new(&[b'a'; 32]), Err(PatternError::TooLong));
    }

    /// The textbook recursive matcher.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', p @ ..], t) => naive(p, t) || (!t.is_empty() && naive(pattern, &t[1..])),
            ([b'?', p @ ..], [_, t @ ..]) => naive(p, t),
            ([a, p @ ..], [b, t @ ..]) if a == b => naive(p, t),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_matcher(pattern in "[ab*?]{1,8}", text in "[ab]{0,15}") {
            prop_assert_eq!(matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
