//! The checks as a person reads them.
//!
//! Comes in: [`Capabilities`]. Goes out: an aligned table and one line of conclusion. Never: colours, which would
//! spoil a bug report.

use std::io::{self, Write};

use super::{Capabilities, State};

/// Writes the table.
pub(super) fn write(capabilities: &Capabilities, w: &mut dyn Write) -> io::Result<()> {
    let checks = capabilities.checks();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        writeln!(w, "{:<8}  {:<width$}  {}", check.state.name(), check.name, check.detail)?;
        if let Some(remedy) = &check.remedy {
            writeln!(w, "{:<8}  {:<width$}  -> {remedy}", "", "")?;
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    writeln!(w)?;
    match (count(State::Missing), count(State::Degraded)) {
        (0, 0) => writeln!(w, "`leaktrace run` works here."),
        (0, degraded) => writeln!(w, "`leaktrace run` works here, {degraded} degraded."),
        (missing, _) => writeln!(w, "`leaktrace run` would fail here: {missing} missing."),
    }
}
