//! What the kernel does with the instruction under a uprobe.
//!
//! Comes in: one decoded instruction and its bytes. Goes out: emulated (about 0.4 µs a hit), single-stepped
//! out of line (2.7 to 40 times that, most in a VM), or refused. Follows `arch/x86/kernel/uprobes.c` of
//! Linux 5.10 to 6.18: what only newer kernels emulate (multi-byte nops since 6.18) counts as stepped, what
//! some of them refuse as refused. Never: measures.

use iced_x86::{Instruction, Mnemonic, OpKind};

/// How the kernel gets past a breakpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// In the trap itself.
    Emulated,
    /// By executing a copy with the trap flag set: a second trap.
    Stepped,
    /// The probe can't be placed.
    Refused,
}

/// What the kernel does with an instruction. `bytes` are exactly its own.
pub fn treatment(instruction: &Instruction, bytes: &[u8]) -> Treatment {
    let Some((prefixes, opcode)) = split_prefixes(bytes) else { return Treatment::Refused };
    // is_prefix_bad(): es, cs, ss, ds, lock. A `notrack jmp` has one.
    if prefixes.iter().any(|p| matches!(p, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0)) {
        return Treatment::Refused;
    }
    let word_sized = prefixes.contains(&0x66);
    match opcode {
        // Word-sized branches are refused; so was `66 90` until 6.2.
        [0xe8 | 0xe9 | 0xeb | 0x70..=0x7f | 0x90, ..] | [0x0f, 0x80..=0x8f, ..] if word_sized => {
            Treatment::Refused
        }
        // call, jmp, jcc with a relative target; nop.
        [0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] => Treatment::Emulated,
        [0x90] if prefixes.is_empty() && instruction.mnemonic() == Mnemonic::Nop => Treatment::Emulated,
        // push of a register, bare or with the one REX prefix that names r8 to r15.
        [0x50..=0x57] if matches!(prefixes, [] | [0x41]) => Treatment::Emulated,
        _ if is_bad(instruction, opcode) => Treatment::Refused,
        _ => Treatment::Stepped,
    }
}

/// Legacy and REX prefixes, and what follows them.
fn split_prefixes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(
        |b| !matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3),
    )?;
    Some(bytes.split_at(at))
}

/// What the kernel's tables of good instructions leave out, and the vector encodings that older kernels
/// leave out.
fn is_bad(instruction: &Instruction, opcode: &[u8]) -> bool {
    instruction.is_invalid()
        || matches!(opcode[0], 0x62 | 0xc4 | 0xc5 | 0x6c..=0x6f | 0xcc..=0xcf | 0xe4..=0xe7 | 0xec..=0xef)
        || matches!(opcode[0], 0xf1 | 0xf4 | 0xfa | 0xfb)
        || matches!(opcode, [0x0f, 0x00..=0x0d | 0x18 | 0x24..=0x27 | 0x30 | 0x34..=0x3f | 0x78..=0x7d, ..])
        || matches!(opcode, [0x0f, 0xa6 | 0xa7 | 0xae | 0xb8 | 0xd0 | 0xf0 | 0xff, ..])
        // Far pointers have no place in a program's flat address space.
        || (0..instruction.op_count()).any(|i| matches!(instruction.op_kind(i), OpKind::FarBranch16 | OpKind::FarBranch32))
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions};

    use super::*;

    fn of(bytes: &[u8]) -> Treatment {
        let instruction = Decoder::with_ip(64, bytes, 0x1000, DecoderOptions::NONE).decode();
        assert_eq!(instruction.len(), bytes.len(), "{bytes:02x?} is {instruction:?}");
        treatment(&instruction, bytes)
    }

    #[test]
    fn what_the_kernel_emulates() {
        for bytes in [
            &[0x90][..],               // nop
            &[0x55],                   // push rbp
            &[0x41, 0x54],             // push r12
            &[0xeb, 0x10],             // jmp short
            &[0xe9, 0, 1, 0, 0],       // jmp near
            &[0x74, 0x10],             // je short
            &[0x0f, 0x84, 0, 1, 0, 0], // je near
            &[0xe8, 0, 1, 0, 0],       // call near
            &[0xf2, 0xe9, 0, 1, 0, 0], // bnd jmp
        ] {
            assert_eq!(of(bytes), Treatment::Emulated, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_it_steps() {
        for bytes in [
            &[0xf3, 0x0f, 0x1e, 0xfa][..],               // endbr64
            &[0x0f, 0x1f, 0x44, 0, 0],                   // 5-byte nop: emulated on 6.18 and later only
            &[0x48, 0x89, 0xe5],                         // mov rbp, rsp
            &[0x48, 0x85, 0xff],                         // test rdi, rdi
            &[0x48, 0x83, 0xec, 0x18],                   // sub rsp, 0x18
            &[0x48, 0x8d, 0x45, 0],                      // lea
            &[0xc3],                                     // ret
            &[0xf3, 0xc3],                               // repz ret
            &[0x5d],                                     // pop rbp
            &[0xff, 0x25, 0, 0, 0, 0],                   // jmp [rip]
            &[0x6a, 0x01],                               // push 1
            &[0x48, 0x55],                               // push rbp with an idle REX.W
            &[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], // mov rax, fs:0
        ] {
            assert_eq!(of(bytes), Treatment::Stepped, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_it_refuses() {
        for bytes in [
            &[0x3e, 0xff, 0xe0][..],   // notrack jmp rax
            &[0xf0, 0x48, 0x01, 0x07], // lock add
            &[0x66, 0x90],             // xchg ax, ax: refused before 6.2
            &[0x0f, 0x05],             // syscall
            &[0x0f, 0x0b],             // ud2
            &[0xcc],                   // int3
            &[0xf4],                   // hlt
            &[0xc5, 0xf8, 0x77],       // vzeroupper
        ] {
            assert_eq!(of(bytes), Treatment::Refused, "{bytes:02x?}");
        }
    }
}
