//! The name of a call site, the same in every run of the same build.
//!
//! Comes in: what a site allocates, and its whole stack, allocator frames included. Goes out: 16 hexadecimal
//! digits. Never: an address, a path, a symbol or a line, so that neither address randomisation nor missing debug
//! information nor another directory changes it.
//!
//! Scheme, to be kept for as long as reports are compared: FNV-1a with 64 bits (offset basis
//! `cbf29ce484222325`, prime `100000001b3`) over the kind's name, then for each frame that is not inlined, innermost
//! first: a zero byte; the build id's digits or, without a build id, the module's file name; a zero byte; the
//! offset in the file as eight bytes, little endian. A frame that is in no file (JIT) contributes its function's
//! name instead of the module, and no offset.

use super::model::Frame;
use crate::event::Kind;

/// Identity of the site that allocates `kind` at `frames`.
pub(super) fn site_id(kind: Kind, frames: &[Frame]) -> u64 {
    let mut hash = Fnv::new();
    hash.add(kind.name().as_bytes());
    for frame in frames.iter().filter(|frame| !frame.inlined) {
        hash.add(&[0]);
        if frame.module.is_empty() {
            hash.add(frame.function.as_deref().unwrap_or("?").as_bytes());
            continue;
        }
        hash.add(frame.build_id.as_deref().unwrap_or_else(|| file_name(&frame.module)).as_bytes());
        hash.add(&[0]);
        hash.add(&hexadecimal(&frame.offset).unwrap_or(0).to_le_bytes());
    }
    hash.0
}

/// The last part of a module's path, without the kernel's mark for a file that was replaced.
pub(super) fn file_name(module: &str) -> &str {
    let module = module.strip_suffix(" (deleted)").unwrap_or(module);
    module.rsplit('/').next().unwrap_or(module)
}

/// Reads `0x…`.
pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::frame;

    #[test]
    fn is_fnv_1a() {
        // The published test vectors of FNV-1a.
        for (text, expected) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            let mut hash = Fnv::new();
            hash.add(text.as_bytes());
            assert_eq!(hash.0, expected, "{text}");
        }
    }

    #[test]
    fn what_differs_between_runs_of_one_build_is_not_in_it() {
        let one = [frame("leak", "/usr/bin/app", 0x1234, Some(("app.c", 7)))];
        let id = site_id(Kind::Heap, &one);
        let mut other = one.clone();
        other[0].address = "0x7f0000001234".into();
        other[0].module = "/opt/app (deleted)".into();
        other[0].function = None;
        other[0].file = None;
        other[0].line = None;
        assert_eq!(site_id(Kind::Heap, &other), id, "address, place, symbol and line");

        let inlined = Frame { inlined: true, ..frame("inner", "/usr/bin/app", 0x1234, None) };
        assert_eq!(site_id(Kind::Heap, &[inlined, one[0].clone()]), id, "inlined frames");
    }

    #[test]
    fn what_makes_another_site_is_in_it() {
        let one = [frame("a", "/bin/app", 0x10, None), frame("b", "/bin/app", 0x20, None)];
        let id = site_id(Kind::Heap, &one);
        assert_ne!(site_id(Kind::Mmap, &one), id, "kind");
        assert_ne!(site_id(Kind::Heap, &one[..1]), id, "depth");
        assert_ne!(site_id(Kind::Heap, &[one[1].clone(), one[0].clone()]), id, "order");
        let mut other = one.clone();
        other[1].offset = "0x21".into();
        assert_ne!(site_id(Kind::Heap, &other), id, "offset");
        let mut other = one.clone();
        other[1].build_id = Some("ffff".into());
        assert_ne!(site_id(Kind::Heap, &other), id, "build");
    }

    #[test]
    fn generated_code_goes_by_its_name() {
        let at = |address: &str, function| {
            let mut jit = frame(function, "", 0, None);
            jit.address = address.into();
            jit.offset = address.into();
            site_id(Kind::Heap, &[jit])
        };
        assert_eq!(at("0x7f00", "js:f"), at("0x7e00", "js:f"));
        assert_ne!(at("0x7f00", "js:f"), at("0x7f00", "js:g"));
    }

    #[test]
    fn stays_what_it_was() {
        // Ids are in saved reports: if this fails, reports of older versions can no longer be compared.
        let mut stack = [frame("main", "/bin/app", 0x1149, None)];
        stack[0].build_id = None;
        assert_eq!(format!("{:016x}", site_id(Kind::Heap, &stack)), "3fe8ec127f7baefa");
    }
}
