//! What was found about one thing that tracing needs.
//!
//! Comes in: from [`super::judge`]. Goes out: to the table, to JSON, to the error of `run`. Never: decides anything.

use serde::Serialize;

/// One thing that tracing needs, or is better with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it is there.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// What to do, unless all is well.
    pub remedy: Option<String>,
}

/// Whether what tracing needs is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is.
    Ok,
    /// Tracing works, but does less.
    Degraded,
    /// Can't be told before something else that is missing is there.
    Unknown,
    /// Tracing can't work without it.
    Missing,
}

impl State {
    /// Word for it, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Missing => "missing",
        }
    }
}
