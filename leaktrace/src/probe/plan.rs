//! Which program goes where in a file.
//!
//! Comes in: the allocation functions that [`crate::allocator`] found. Goes out: events to define, each a
//! program with its offsets. Never: touches the kernel.

use std::collections::{BTreeMap, BTreeSet};

use super::tracefs::ProbeKind;
use crate::allocator::{Discovery, Exit, Role};
use crate::event::Kind;

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

/// The events of a file.
///
/// Mappings are left out if `kinds` does not ask for them. The heap is not: what an allocator maps for itself is
/// known by the allocation that it does so for.
pub fn plan(discovery: &Discovery, kinds: &BTreeSet<Kind>) -> Vec<PlannedEvent> {
    let mut events: BTreeMap<&'static str, PlannedEvent> = BTreeMap::new();
    let mut add = |program, kind, offset| {
        let event =
            events.entry(program).or_insert_with(|| PlannedEvent { program, kind, offsets: Vec::new() });
        if let Err(at) = event.offsets.binary_search(&offset) {
            event.offsets.insert(at, offset);
        }
    };
    let mappings = kinds.contains(&Kind::Mmap);
    let wanted = discovery.points.iter().filter(|point| mappings || !is_mapping(point.role));
    for point in wanted {
        add(program(point.role), ProbeKind::Entry, point.entry.offset);
        match &point.exit {
            Exit::None => {}
            Exit::ReturnProbe => add("returned", ProbeKind::Return, point.entry.offset),
            Exit::ReturnSites(sites) => {
                for site in sites {
                    add("returning", ProbeKind::Entry, site.offset);
                }
            }
        }
    }
    events.into_values().collect()
}

/// The BPF program for a role.
const fn program(role: Role) -> &'static str {
    match role {
        Role::Malloc => "malloc",
        Role::SizeSecond => "size_second",
        Role::Calloc => "calloc",
        Role::CallocSecond => "calloc_second",
        Role::Realloc => "realloc",
        Role::ReallocSecond => "realloc_second",
        Role::Reallocarray => "reallocarray",
        Role::PosixMemalign => "posix_memalign",
        Role::Free => "free",
        Role::FreeSecond => "free_second",
        Role::New => "operator_new",
        Role::Mmap => "mmap",
        Role::Munmap => "munmap",
        Role::Mremap => "mremap",
        Role::LoaderState => "libraries",
    }
}

const fn is_mapping(role: Role) -> bool {
    matches!(role, Role::Mmap | Role::Munmap | Role::Mremap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::ProbePoint;
    use crate::probe::site::Site;

    fn site(offset: u64) -> Site {
        Site { offset, address: offset, instruction: String::new(), emulated: true, depth: 0 }
    }

    fn point(role: Role, offset: u64, exit: Exit) -> ProbePoint {
        ProbePoint { function: String::new(), role, entry: site(offset), exit }
    }

    #[test]
    fn functions_of_a_role_share_an_event() {
        let discovery = Discovery {
            allocators: Vec::new(),
            points: vec![
                point(Role::Malloc, 0x20, Exit::ReturnProbe),
                point(Role::Malloc, 0x10, Exit::ReturnSites(vec![site(0x18)])),
                point(Role::Mmap, 0x30, Exit::ReturnProbe),
                point(Role::LoaderState, 0x40, Exit::None),
            ],
            problems: Vec::new(),
        };
        let heap = plan(&discovery, &BTreeSet::from([Kind::Heap]));
        let shape: Vec<_> = heap.iter().map(|e| (e.program, e.kind, e.offsets.as_slice())).collect();
        assert_eq!(
            shape,
            [
                ("libraries", ProbeKind::Entry, &[0x40][..]),
                ("malloc", ProbeKind::Entry, &[0x10, 0x20]),
                ("returned", ProbeKind::Return, &[0x20]),
                ("returning", ProbeKind::Entry, &[0x18]),
            ]
        );
        assert_eq!(plan(&discovery, &BTreeSet::from([Kind::Heap, Kind::Mmap])).len(), 5);
    }
}
