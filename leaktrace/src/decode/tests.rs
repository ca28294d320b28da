//! What the decoder makes of good, short, unknown and random bytes.

use leaktrace_common::comm::comm_bytes;
use proptest::prelude::*;

use super::*;

/// A record, written field by field as the kernel side's struct has them.
struct Bytes(Vec<u8>);

impl Bytes {
    fn header(kind: u8, detail: u8, count: u16, pid: u32) -> Self {
        let mut bytes = vec![kind, detail];
        bytes.extend(count.to_le_bytes());
        bytes.extend(pid.to_le_bytes());
        Self(bytes)
    }

    fn of(kind: u8) -> Self {
        Self::header(kind, 0, 0, 7)
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn comm(mut self, name: &[u8]) -> Self {
        self.0.extend(comm_bytes(name));
        self
    }

    fn tid(self) -> Self {
        self.u32(8).u32(0)
    }

    fn lifecycle(kind: u8, other: u32, comm: &[u8]) -> Self {
        Self::of(kind).u32(other).u32(3).u64(50_000_000).comm(comm).u64(1).u64(2).u64(3).u64(4)
    }
}

fn id(id: u64) -> Option<StackId> {
    NonZeroU64::new(id).map(StackId)
}

const PID: Pid = Pid(7);
const TID: Tid = Tid(8);

#[test]
fn every_kind_arrives_with_its_fields() {
    let comm = || Comm("worker".into());
    for (bytes, event) in [
        (
            Bytes::of(kind::ALLOC).u64(0x1000).u64(32).u64(9),
            Event::Alloc { pid: PID, addr: 0x1000, size: 32, stack: id(9) },
        ),
        (
            Bytes::of(kind::ALLOC).u64(0x1000).u64(32).u64(0),
            Event::Alloc { pid: PID, addr: 0x1000, size: 32, stack: None },
        ),
        (Bytes::of(kind::FREE).u64(0x1000), Event::Free { pid: PID, addr: 0x1000 }),
        (
            Bytes::of(kind::REALLOC_BEGIN).tid().u64(0x1000),
            Event::ReallocBegin { pid: PID, tid: TID, addr: 0x1000 },
        ),
        (
            Bytes::of(kind::REALLOC_END).tid().u64(0x2000).u64(64).u64(9),
            Event::ReallocEnd { pid: PID, tid: TID, moved: Some((0x2000, 64)), stack: id(9) },
        ),
        (
            Bytes::of(kind::REALLOC_END).tid().u64(0).u64(64).u64(0),
            Event::ReallocEnd { pid: PID, tid: TID, moved: None, stack: None },
        ),
        (
            Bytes::of(kind::MAP).u64(0x1000).u64(8192).u64(9),
            Event::Map { pid: PID, addr: 0x1000, len: 8192, stack: id(9) },
        ),
        (
            Bytes::of(kind::UNMAP_BEGIN).tid().u64(0x1000).u64(8192),
            Event::UnmapBegin { pid: PID, tid: TID, addr: 0x1000, len: 8192 },
        ),
        (Bytes::of(kind::UNMAP_FAILED).tid().u64(0).u64(0).u64(0), Event::UnmapFailed { pid: PID, tid: TID }),
        (
            Bytes::of(kind::REMAP_BEGIN).tid().u64(0x1000).u64(8192),
            Event::RemapBegin { pid: PID, tid: TID, addr: 0x1000, len: 8192 },
        ),
        (
            Bytes::of(kind::REMAP_END).tid().u64(0x4000).u64(4096).u64(9),
            Event::RemapEnd { pid: PID, tid: TID, moved: Some((0x4000, 4096)), stack: id(9) },
        ),
        (
            Bytes::lifecycle(kind::FORK, 11, b"worker"),
            Event::Fork {
                parent: PID,
                child: ProcessKey { pid: Pid(11), start_ns: 50_000_000 },
                comm: comm(),
            },
        ),
        (
            Bytes::lifecycle(kind::EXEC, 0, b"worker"),
            Event::Exec { process: ProcessKey { pid: PID, start_ns: 50_000_000 }, comm: comm() },
        ),
        (
            Bytes::lifecycle(kind::EXIT, 0, b"worker"),
            Event::Exit { pid: PID, lost: Lost { allocs: 1, alloc_bytes: 2, frees: 3, moves: 4 } },
        ),
    ] {
        assert_eq!(decode(&bytes.0), Ok(event));
        let needed = bytes.0.len();
        let cut = &bytes.0[..needed - 1];
        assert_eq!(decode(cut), Err(DecodeError::TooShort { needed, len: needed - 1 }));
    }
}

#[test]
fn a_stack_brings_as_many_frames_as_it_counts() {
    // The record is a short stack's: longer than its two frames.
    let mut bytes = Bytes::header(kind::STACK, Ending::Broken as u8, 2, 7).u32(5).u32(0).u64(99);
    for frame in 0..31 {
        bytes = bytes.u64(0x5000 + frame);
    }
    let frames =
        Frames { pid: PID, generation: 5, addresses: [0x5000, 0x5001].into(), ending: Ending::Broken };
    assert_eq!(decode(&bytes.0), Ok(Event::Stack { id: StackId(NonZeroU64::new(99).unwrap()), frames }));
    let len = STACK_PREFIX + 15;
    assert_eq!(
        decode(&bytes.0[..len]),
        Err(DecodeError::TooShort { needed: STACK_PREFIX + 16, len }),
        "the second frame is cut"
    );
}

#[test]
fn a_stack_that_cannot_be_says_why() {
    let stack = |ending, count, id| decode(&Bytes::header(kind::STACK, ending, count, 7).u64(0).u64(id).0);
    assert_eq!(stack(0, 128, 9), Err(DecodeError::TooManyFrames { count: 128 }));
    assert_eq!(stack(4, 0, 9), Err(DecodeError::UnknownEnding { ending: 4 }));
    assert_eq!(stack(0, 0, 0), Err(DecodeError::NoStackId));
    assert!(stack(0, 0, 9).is_ok());
}

#[test]
fn what_is_no_record_says_why() {
    assert_eq!(decode(&[]), Err(DecodeError::TooShort { needed: 8, len: 0 }));
    assert_eq!(decode(&Bytes::of(0).0), Err(DecodeError::UnknownKind { kind: 0 }));
    assert_eq!(decode(&Bytes::of(14).0), Err(DecodeError::UnknownKind { kind: 14 }));
}

#[test]
fn a_comm_may_be_anything() {
    let comm = |name: &[u8]| match decode(&Bytes::lifecycle(kind::EXEC, 0, name).0) {
        Ok(Event::Exec { comm, .. }) => comm.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(comm(b""), "");
    assert_eq!(comm(b"fifteen-letters"), "fifteen-letters");
    assert_eq!(comm(b"a\xffb"), "a\u{fffd}b");
    assert_eq!(comm(b"one\0two"), "one", "a comm ends at its first NUL");
}

proptest! {
    #[test]
    fn any_bytes_decode_or_say_why(bytes in prop::collection::vec(any::<u8>(), 0..1200), kind in 0..20u8) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        match decode(&bytes) {
            Ok(Event::Stack { frames, .. }) => prop_assert!(frames.addresses.len() <= MAX_FRAMES),
            Ok(_) => prop_assert!((kind::ALLOC..=kind::EXIT).contains(&kind)),
            Err(DecodeError::TooShort { needed, len }) => {
                prop_assert_eq!(len, bytes.len());
                prop_assert!(needed > len);
            }
            Err(DecodeError::UnknownKind { kind: unknown }) => {
                prop_assert_eq!(unknown, kind);
                prop_assert!(!(kind::ALLOC..=kind::EXIT).contains(&kind));
            }
            Err(_) => prop_assert_eq!(kind, kind::STACK),
        }
    }

    #[test]
    fn what_follows_a_record_changes_nothing(
        bytes in prop::collection::vec(any::<u8>(), 72..=72),
        kind in prop_oneof![kind::ALLOC..=kind::REMAP_END, kind::FORK..=kind::EXIT],
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = bytes;
        bytes[0] = kind;
        let event = decode(&bytes);
        bytes.extend(rest);
        prop_assert_eq!(decode(&bytes), event);
    }
}
