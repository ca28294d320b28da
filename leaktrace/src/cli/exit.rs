//! How leaktrace ends, as a number that scripts rely on.
//!
//! Comes in: a decision of a command. Goes out: the process's exit code. Never: another number.

use std::process::ExitCode;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done; no leak was asked about.
    Done = 0,
    /// leaktrace failed; the message says why and what to do.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// A leak over the limit was found.
    Leak = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
