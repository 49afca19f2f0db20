// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Arbitrary descriptors in a ring that is otherwise well formed, against a plain walk of them.

use std::sync::Arc;

use virtqueue::{MemoryMap, QueueConfig, RingBase, RingKind, TxQueue};

use crate::guest::{config, guest};
use crate::input::Input;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Where the table of indirect descriptors is: across the two adjacent regions.
const TABLE: u64 = (16 << 10) - 32;

/// Interprets bytes as an indirect table and as descriptors, fills a ring with them and harvests
/// it. Frames must be what a plain walk of the chains finds, as long as it finds no mistake.
pub fn chains(data: &[u8]) {
    let mut input = Input(data);
    let kind = if input.u8() & 1 == 0 { RingKind::Split } else { RingKind::Packed };
    let map = guest();
    let mut config = config(&mut input, kind, 0);
    config.base = RingBase::initial(kind);
    for at in 0..16 {
        descriptor(&mut input, kind, 0).write(&map, kind, TABLE + 16 * at);
    }
    // Bytes that tell one place from another.
    let pattern: Vec<u8> = (0..4096_u32).map(|i| (i.wrapping_mul(167) >> 4).to_le_bytes()[0]).collect();
    let _ = map.write(20 << 10, &pattern);
    let descriptors: Vec<Desc> = (0..config.size).map(|_| descriptor(&mut input, kind, config.size)).collect();
    for (at, desc) in (0_u64..).zip(&descriptors) {
        let mut desc = *desc;
        if kind == RingKind::Packed {
            // Available in the first lap.
            desc.flags |= 1 << 7;
        }
        desc.write(&map, kind, config.addresses.desc + 16 * at);
    }
    if kind == RingKind::Split {
        for at in 0..u64::from(config.size) {
            let head = input.u16() % config.size;
            let _ = map.write(config.addresses.driver + 4 + 2 * at, &head.to_le_bytes());
        }
        let _ = map.write(config.addresses.driver + 2, &config.size.to_le_bytes());
    }
    let Ok(mut queue) = TxQueue::new(config, Arc::clone(&map), None) else {
        panic!("{config:?} was refused");
    };
    let mut walk = Walk { map: &map, config, next: 0 };
    while let Ok(held) = queue.harvest(64) {
        if held == 0 {
            break;
        }
        for i in 0..held {
            let Some(expected) = walk.next_frame() else {
                panic!("frame {i} is malformed and was harvested");
            };
            let mut frame = vec![0; expected.len() + 1];
            let read = queue.read(i, 0, &mut frame);
            assert!(frame.get(..read) == Some(&expected[..]), "frame {i} of {config:?}");
        }
        queue.release(held);
        queue.publish();
    }
}

#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    /// Next (split) or id (packed).
    other: u16,
}

fn descriptor(input: &mut Input<'_>, kind: RingKind, size: u16) -> Desc {
    let (how, next) = (input.u8(), u16::from(input.u8()));
    let (addr, len) = match how >> 4 {
        0 => (input.u64(), input.u32()),
        1 => (u64::from(input.u16()), input.u32()),
        2 | 3 => (TABLE, 16 * u32::from(input.u8() % 20)),
        _ => (u64::from(input.u16()), u32::from(input.u16() % 600)),
    };
    let flags = match how & 15 {
        0..=6 => 0,
        7..=11 => NEXT,
        12 | 13 => INDIRECT,
        14 => WRITE,
        _ => u16::from(input.u8() & 7),
    };
    let other = match kind {
        RingKind::Split if how & 0x80 == 0 => next,
        RingKind::Split => next % size.max(16),
        RingKind::Packed => next,
    };
    Desc { addr, len, flags, other }
}

impl Desc {
    fn write(&self, map: &MemoryMap, kind: RingKind, at: u64) {
        let (first, second) = match kind {
            RingKind::Split => (self.flags, self.other),
            RingKind::Packed => (self.other, self.flags),
        };
        let mut bytes = [0; 16];
        let words = u128::from(self.addr) | u128::from(self.len) << 64;
        let words = words | u128::from(first) << 96 | u128::from(second) << 112;
        bytes.copy_from_slice(&words.to_le_bytes());
        let _ = map.write(at, &bytes);
    }

    fn read(map: &MemoryMap, kind: RingKind, at: u64) -> Option<Self> {
        let mut bytes = [0; 16];
        map.read(at, &mut bytes).ok()?;
        let mut input = Input(&bytes);
        let (addr, len, first, second) = (input.u64(), input.u32(), input.u16(), input.u16());
        let (flags, other) = match kind {
            RingKind::Split => (first, second),
            RingKind::Packed => (second, first),
        };
        Some(Self { addr, len, flags, other })
    }
}

/// Reads one chain after the other, as the specification says, and gives up at the first mistake.
struct Walk<'a> {
    map: &'a MemoryMap,
    config: QueueConfig,
    /// Chain (split) or descriptor (packed) that comes next.
    next: u64,
}

impl Walk<'_> {
    /// The bytes of the next frame, without header. `None`: its chain is malformed.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let QueueConfig { size, features, addresses, .. } = self.config;
        let mut bytes = Vec::new();
        let mut index = match features.kind {
            RingKind::Packed => self.next,
            RingKind::Split => {
                let mut head = [0; 2];
                self.map.read(addresses.driver + 4 + 2 * self.next, &mut head).ok()?;
                self.next += 1;
                u64::from(u16::from_le_bytes(head))
            }
        };
        for _ in 0..size {
            if index >= u64::from(size) {
                return None;
            }
            let desc = Desc::read(self.map, features.kind, addresses.desc + 16 * index)?;
            if desc.flags & INDIRECT != 0 {
                if !features.indirect || desc.flags & NEXT != 0 || desc.len == 0 || desc.len % 16 != 0 {
                    return None;
                }
                self.table(desc, &mut bytes)?;
            } else {
                self.buffer(desc, &mut bytes)?;
            }
            if features.kind == RingKind::Packed {
                self.next += 1;
            }
            if desc.flags & NEXT == 0 {
                return bytes.get(usize::from(features.header_len)..).map(<[u8]>::to_vec);
            }
            index = if features.kind == RingKind::Packed { self.next } else { u64::from(desc.other) };
        }
        None
    }

    fn table(&self, table: Desc, bytes: &mut Vec<u8>) -> Option<()> {
        let kind = self.config.features.kind;
        let entries = u64::from(table.len / 16);
        let mut index = 0;
        for _ in 0..entries {
            let desc = Desc::read(self.map, kind, table.addr.checked_add(16 * index)?)?;
            if desc.flags & INDIRECT != 0 {
                return None;
            }
            self.buffer(desc, bytes)?;
            index = match kind {
                RingKind::Packed => index + 1,
                RingKind::Split if desc.flags & NEXT == 0 => return Some(()),
                RingKind::Split => u64::from(desc.other),
            };
            if index >= entries && kind == RingKind::Split {
                return None;
            }
        }
        // A packed table ends with its last entry; a split one must say so.
        (kind == RingKind::Packed).then_some(())
    }

    fn buffer(&self, desc: Desc, bytes: &mut Vec<u8>) -> Option<()> {
        // Nothing larger than the guest is mapped.
        if desc.flags & WRITE != 0 || desc.len > 1 << 20 {
            return None;
        }
        let mut piece = vec![0; usize::try_from(desc.len).ok()?];
        self.map.read(desc.addr, &mut piece).ok()?;
        bytes.extend(piece);
        Some(())
    }
}
