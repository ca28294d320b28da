//! Where members of kernel structures are, read from the running kernel's BTF.
//!
//! Comes in: the bytes of `/sys/kernel/btf/vmlinux`. Goes out: [`KernelOffsets`]. Never: a guess: a member that
//! is not there is an error.
//!
//! Rust has no CO-RE, and aya keeps its BTF members to itself, so this reads the few that we need. Format:
//! <https://docs.kernel.org/bpf/btf.html>.

use leaktrace_common::process::KernelOffsets;
use rustc_hash::FxHashMap;

/// The kernel's own description of its types.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xEB9F;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// Why an offset could not be found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or cut short.
    #[error("the kernel's type information ({VMLINUX}) is malformed at byte {0}")]
    Malformed(usize),
    /// The kernel has changed.
    #[error("this kernel's `{structure}` has no member `{member}`: leaktrace does not know this kernel yet")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The member.
        member: &'static str,
    },
}

/// Finds what the kernel side reads.
pub fn kernel_offsets(btf: &[u8]) -> Result<KernelOffsets, BtfError> {
    let types = Types::parse(btf)?;
    let member =
        |structure, member| types.member(structure, member)?.ok_or(BtfError::NoMember { structure, member });
    Ok(KernelOffsets {
        task_tgid: member("task_struct", "tgid")?,
        task_mm: member("task_struct", "mm")?,
        task_start_boottime: member("task_struct", "start_boottime")?,
        task_signal: member("task_struct", "signal")?,
        signal_live: member("signal_struct", "live")?,
    })
}

/// The types of one BTF blob, by where they begin.
struct Types<'b> {
    strings: &'b [u8],
    records: &'b [u8],
    /// Byte offset in `records` of each type; id 0 is `void`.
    starts: Vec<usize>,
    structures: FxHashMap<&'b [u8], usize>,
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, BtfError> {
    let array = bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).ok_or(BtfError::Malformed(at))?;
    Ok(u16::from_le_bytes(array))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let array = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(BtfError::Malformed(at))?;
    Ok(u32::from_le_bytes(array))
}

impl<'b> Types<'b> {
    fn parse(btf: &'b [u8]) -> Result<Self, BtfError> {
        if u16_at(btf, 0)? != MAGIC {
            return Err(BtfError::Malformed(0));
        }
        let header_len = u32_at(btf, 4)? as usize;
        let section = |offset: usize, len: usize| {
            let start = header_len + u32_at(btf, offset)? as usize;
            btf.get(start..start + u32_at(btf, len)? as usize).ok_or(BtfError::Malformed(start))
        };
        let (types, strings) = (section(8, 12)?, section(16, 20)?);
        let mut parsed = Self { strings, records: types, starts: vec![0], structures: FxHashMap::default() };
        let mut at = 0;
        while at < types.len() {
            let info = u32_at(types, at + 4)?;
            if info >> 24 & 0x1F == KIND_STRUCT {
                parsed.structures.entry(parsed.name(at)?).or_insert(at);
            }
            parsed.starts.push(at);
            at += 12 + extra_bytes(info).ok_or(BtfError::Malformed(at))?;
        }
        Ok(parsed)
    }

    fn string(&self, at: usize) -> &'b [u8] {
        let rest = self.strings.get(at..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn name(&self, at: usize) -> Result<&'b [u8], BtfError> {
        Ok(self.string(u32_at(self.records, at)? as usize))
    }

    /// Byte offset of a member, members of anonymous structures and unions included.
    fn member(&self, structure: &str, member: &str) -> Result<Option<u32>, BtfError> {
        match self.structures.get(structure.as_bytes()) {
            Some(at) => self.member_of(*at, member.as_bytes()),
            None => Ok(None),
        }
    }

    fn member_of(&self, at: usize, wanted: &[u8]) -> Result<Option<u32>, BtfError> {
        let info = u32_at(self.records, at + 4)?;
        let bit_fields = info >> 31 == 1;
        for member in 0..info as usize & 0xFFFF {
            let entry = at + 12 + member * 12;
            let offset = u32_at(self.records, entry + 8)?;
            let bytes = if bit_fields { (offset & 0xFF_FFFF) / 8 } else { offset / 8 };
            let name = self.name(entry)?;
            if name == wanted {
                return Ok(Some(bytes));
            }
            if name.is_empty()
                && let Some(inner) = self.aggregate(u32_at(self.records, entry + 4)?)?
                && let Some(inside) = self.member_of(inner, wanted)?
            {
                return Ok(Some(bytes + inside));
            }
        }
        Ok(None)
    }

    /// Where the structure or union with this id begins.
    fn aggregate(&self, id: u32) -> Result<Option<usize>, BtfError> {
        let Some(at) = self.starts.get(id as usize).copied() else { return Ok(None) };
        let kind = u32_at(self.records, at + 4)? >> 24 & 0x1F;
        Ok((kind == KIND_STRUCT || kind == KIND_UNION).then_some(at))
    }
}

/// Bytes after the 12 that every type has.
fn extra_bytes(info: u32) -> Option<usize> {
    let members = info as usize & 0xFFFF;
    Some(match info >> 24 & 0x1F {
        // int, var, decl_tag
        1 | 14 | 17 => 4,
        // ptr, fwd, typedef, volatile, const, restrict, func, float, type_tag
        2 | 7..=12 | 16 | 18 => 0,
        // array
        3 => 12,
        KIND_STRUCT | KIND_UNION | 15 | 19 => members * 12,
        // enum, func_proto
        6 | 13 => members * 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { int a; union { int b; struct { int c; int d; }; }; };`
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0s\0a\0b\0c\0d\0";
        let word = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut types = word(&[1, 1 << 24, 4, 32]); // 1: int
        types.extend(word(&[0, KIND_STRUCT << 24 | 2, 8, 11, 1, 0, 13, 1, 32])); // 2: struct { c, d }
        types.extend(word(&[0, KIND_UNION << 24 | 2, 8, 9, 1, 0, 0, 2, 0])); // 3: union { b, 2 }
        types.extend(word(&[5, KIND_STRUCT << 24 | 2, 12, 7, 1, 0, 0, 3, 32])); // 4: s
        let mut btf = vec![0x9F, 0xEB, 1, 0];
        btf.extend(word(&[24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]));
        btf.extend(types);
        btf.extend(strings);
        btf
    }

    #[test]
    fn members_of_anonymous_aggregates_are_found() {
        let btf = sample();
        let types = Types::parse(&btf).unwrap();
        for (member, offset) in [("a", Some(0)), ("b", Some(4)), ("c", Some(4)), ("d", Some(8)), ("e", None)]
        {
            assert_eq!(types.member("s", member), Ok(offset), "{member}");
        }
        assert_eq!(types.member("t", "a"), Ok(None));
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let btf = sample();
        for cut in 0..btf.len() {
            let _ = kernel_offsets(&btf[..cut]).unwrap_err();
        }
        assert_eq!(kernel_offsets(b"\x7fELF"), Err(BtfError::Malformed(0)));
    }

    #[test]
    fn the_running_kernel_has_them() {
        let Ok(btf) = std::fs::read(VMLINUX) else { return };
        let offsets = kernel_offsets(&btf).unwrap();
        assert!(offsets.task_tgid > 0 && offsets.task_signal > 0);
    }
}
