//! Which program goes where in a file.
//!
//! Comes in: the allocation functions that [`crate::allocator`] found. Goes out: events to define, each a
//! program with its offsets. Never: touches the kernel.

use std::collections::BTreeMap;

use super::tracefs::ProbeKind;

/// A program and the places in a file where it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEvent {
    /// Name of the BPF program, and part of the event's name.
    pub program: &'static str,
    /// Before an instruction, or at the return.
    pub kind: ProbeKind,
    /// File offsets, ascending, each once.
    pub offsets: Vec<u64>,
}

/// Collects events by program.
#[derive(Debug, Default)]
pub struct Plan(BTreeMap<&'static str, (Option<ProbeKind>, Vec<u64>)>);

impl Plan {
    /// Adds one place.
    pub fn add(&mut self, program: &'static str, kind: ProbeKind, offset: u64) {
        let (known, offsets) = self.0.entry(program).or_default();
        *known = Some(kind);
        if let Err(at) = offsets.binary_search(&offset) {
            offsets.insert(at, offset);
        }
    }

    /// The events, ordered by program.
    pub fn events(self) -> Vec<PlannedEvent> {
        self.0
            .into_iter()
            .filter_map(|(program, (kind, offsets))| Some(PlannedEvent { program, kind: kind?, offsets }))
            .collect()
    }
}
