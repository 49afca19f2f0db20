// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A transposition compiled for one flow, and how it is applied to a packet.
//!
//! Order: what the packet's headers say is read; what must be dropped is; bytes are stored where they are;
//! checksums follow by differences (RFC 1624), most of which are constants of the flow; the front is moved
//! last, so that everything before works on the offsets the parser gave.

use super::{
    front::Front,
    header::{IpEdit, Mark, Marks},
};
use crate::{Burst, Checksum, DropCause, Layout, OuterLayout, Tunnel, checksum::Sum};

/// A [`Transposition`](super::Transposition) for one flow. It fits all packets with the identity that it
/// was compiled for, whatever options their headers have.
#[derive(Debug)]
pub struct Program {
    /// Bytes to be stored: base, offset from it, how many, the bytes; again and again.
    pub(super) stores: Box<[u8]>,
    pub(super) front: Option<Box<Front>>,
    pub(super) outer: Option<Box<OuterProgram>>,
    pub(super) ip: IpEdit,
    pub(super) transport: TransportEdit,
    /// IP versions of the headers that the packet comes with; 0 for those that are not read.
    pub(super) reads: (u8, u8),
    /// What the TTLs must exceed, if it is not 0: inner, outer.
    pub(super) guards: (u8, u8),
}

/// What stores are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Base {
    Front,
    OuterIp,
    OuterTransport,
    Ethernet,
    Network,
    Transport,
    /// The key of a GRE header, which may have a checksum before it.
    GreKey,
}

/// How the inner transport checksum changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TransportEdit {
    /// Where the checksum lies in the header; 0 if it does not change.
    pub(super) field: u8,
    /// 0 says that there is none.
    pub(super) optional: bool,
    /// 0 is sent as 0xffff.
    pub(super) never_zero: bool,
    /// What changed addresses add to the pseudo header's sum.
    pub(super) addresses: u16,
    /// What changed ports add to the header's.
    pub(super) ports: u16,
}

/// What happens to an outer group that stays, if anything in the packet changes.
#[derive(Debug)]
pub(super) struct OuterProgram {
    pub(super) ip: IpEdit,
    /// Whether a UDP checksum's pseudo header changes, and what that adds to its sum.
    pub(super) addresses: u16,
    /// Bytes by which the packet in it grows.
    pub(super) grown: i16,
}

/// A checksum over all that a tunnel carries, before its content changes.
struct Cover {
    field: usize,
    from: usize,
    sum: Sum,
    udp: bool,
}

/// A flag in the first byte of a GRE header (RFC 2784).
const GRE_CHECKSUM_PRESENT: u8 = 0x80;

impl Program {
    /// Applies it to packet `i`, which belongs to its flow and is laid out so. `flow_hash` is that of the
    /// packet as it came to the switch. On the way, the offload metadata stay right: an unfinished checksum
    /// stays unfinished. Afterwards the layout is no longer that of the packet.
    ///
    /// # Errors
    /// The packet is to be dropped; its bytes may be changed. [`TtlExpired`](DropCause::TtlExpired),
    /// [`EcnNotCapable`](DropCause::EcnNotCapable), [`NoHeadroom`](DropCause::NoHeadroom),
    /// [`TooBig`](DropCause::TooBig) for an IP length field, [`BadOffload`](DropCause::BadOffload) if a
    /// checksum was to be finished that is taken off with segmentation to be done, and
    /// [`HeaderBeyondWindow`](DropCause::HeaderBeyondWindow) if the layout is that of another flow.
    #[inline]
    pub fn apply(&self, burst: &mut Burst, i: usize, layout: &Layout, flow_hash: u32) -> Result<(), DropCause> {
        let beyond = DropCause::HeaderBeyondWindow;
        let unfinished = burst.offload(i).checksum;
        let window = burst.window_mut(i);
        let marks = self.read(window, layout).ok_or(beyond)?;
        if expired(self.guards.0, marks.inner) || expired(self.guards.1, marks.outer) {
            return Err(DropCause::TtlExpired);
        }
        let cover = match (&self.outer, &layout.outer) {
            (Some(_), Some(outer)) => Cover::new(window, outer, unfinished).ok_or(beyond)?,
            _ => None,
        };
        self.store(window, layout).ok_or(beyond)?;
        if self.ip.version != 0 {
            self.ip.apply(window, layout.network.ok_or(beyond)?.into(), &marks, 0)?;
        }
        if self.transport.field != 0 {
            self.transport.apply(window, layout.transport.ok_or(beyond)?, unfinished).ok_or(beyond)?;
        }
        if let Some(program) = &self.outer {
            program.apply(window, layout.outer.as_ref().ok_or(beyond)?, &marks, unfinished)?;
        }
        if let Some(front) = &self.front {
            front.apply(burst, i, layout, &marks, flow_hash)?;
        }
        if let (Some(cover), Some(program)) = (cover, &self.outer) {
            cover.finish(burst.window_mut(i), program).ok_or(beyond)?;
        }
        Ok(())
    }

    /// Bytes that it holds besides itself, what an allocator adds apart.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let front = self.front.as_ref().map_or(0, |front| {
            let header = front.header.as_ref().map_or(0, |header| header.bytes.len());
            size_of::<Front>().saturating_add(front.tags.len()).saturating_add(header)
        });
        let outer = self.outer.as_ref().map_or(0, |_| size_of::<OuterProgram>());
        self.stores.len().saturating_add(front).saturating_add(outer)
    }

    #[inline]
    fn read(&self, window: &[u8], layout: &Layout) -> Option<Marks> {
        let mut marks = Marks::default();
        if self.reads.0 != 0 {
            marks.inner = Mark::read(window, layout.network?.into(), self.reads.0)?;
        }
        if self.reads.1 != 0 {
            marks.outer = Mark::read(window, layout.outer.as_ref()?.ip.into(), self.reads.1)?;
        }
        Some(marks)
    }

    #[inline]
    fn store(&self, window: &mut [u8], layout: &Layout) -> Option<()> {
        let mut rest: &[u8] = &self.stores;
        while let [base, offset, len, after @ ..] = rest {
            let (bytes, next) = after.split_at_checked(usize::from(*len))?;
            let base = match *base {
                0 => 0,
                1 => layout.outer.as_ref()?.ip,
                2 => layout.outer.as_ref()?.transport,
                3 => layout.ethernet?,
                4 => layout.network?,
                5 => layout.transport?,
                _ => {
                    let header = layout.outer.as_ref()?.transport;
                    let flags = *window.get(usize::from(header))?;
                    header.checked_add(if flags & GRE_CHECKSUM_PRESENT != 0 { 8 } else { 4 })?
                }
            };
            put(window, usize::from(base).saturating_add(usize::from(*offset)), bytes)?;
            rest = next;
        }
        Some(())
    }
}

impl TransportEdit {
    #[inline]
    fn apply(self, window: &mut [u8], header: u16, unfinished: Checksum) -> Option<()> {
        let at = usize::from(header).saturating_add(usize::from(self.field));
        let field: &mut [u8; 2] = window.get_mut(at..)?.first_chunk_mut()?;
        let old = u16::from_be_bytes(*field);
        let mut sum = Sum::new();
        if unfinished == (Checksum::Unfinished { start: header, offset: self.field.into() }) {
            // The field is the pseudo header's sum; ports will be summed when somebody finishes it.
            sum.add_value(old);
            sum.add_value(self.addresses);
            *field = sum.partial().to_be_bytes();
        } else if !(self.optional && old == 0) {
            sum.add_value(!old);
            sum.add_value(self.addresses);
            sum.add_value(self.ports);
            let new = if self.never_zero { sum.transport_checksum() } else { sum.checksum() };
            *field = new.to_be_bytes();
        }
        Some(())
    }
}

impl OuterProgram {
    fn apply(
        &self,
        window: &mut [u8],
        layout: &OuterLayout,
        marks: &Marks,
        unfinished: Checksum,
    ) -> Result<(), DropCause> {
        self.ip.apply(window, layout.ip.into(), marks, self.grown)?;
        if matches!(layout.tunnel, Tunnel::Vxlan | Tunnel::Geneve) {
            let header = usize::from(layout.transport);
            let udp: &mut [u8; 8] =
                window.get_mut(header..).and_then(<[u8]>::first_chunk_mut).ok_or(DropCause::HeaderBeyondWindow)?;
            let [_, _, _, _, len_0, len_1, check_0, check_1] = udp;
            let len = u16::from_be_bytes([*len_0, *len_1]);
            let new = len.checked_add_signed(self.grown).ok_or(DropCause::TooBig)?;
            [*len_0, *len_1] = new.to_be_bytes();
            if unfinished == (Checksum::Unfinished { start: layout.transport, offset: 6 }) {
                let mut sum = Sum::new();
                sum.add_value(u16::from_be_bytes([*check_0, *check_1]));
                sum.add_value(self.addresses);
                if len != new {
                    sum.add_value(!len);
                    sum.add_value(new);
                }
                [*check_0, *check_1] = sum.partial().to_be_bytes();
            }
        }
        Ok(())
    }
}

impl Cover {
    /// What there is, in packets that have such a checksum and finished. `None` outside: beyond the window.
    #[expect(clippy::option_option, reason = "beyond the window, or none")]
    fn new(window: &[u8], layout: &OuterLayout, unfinished: Checksum) -> Option<Option<Self>> {
        let from = usize::from(layout.transport);
        let covered = window.get(from..)?;
        let udp = matches!(layout.tunnel, Tunnel::Vxlan | Tunnel::Geneve);
        let [flags, _, _, _, _, _, udp_0, udp_1, ..] = covered else {
            return if udp { None } else { Some(None) };
        };
        let there = if udp { (udp_0 | udp_1) != 0 } else { flags & GRE_CHECKSUM_PRESENT != 0 };
        let field = from.saturating_add(if udp { 6 } else { 4 });
        if !there || unfinished == (Checksum::Unfinished { start: layout.transport, offset: 6 }) {
            return Some(None);
        }
        let mut sum = Sum::new();
        sum.add(covered);
        Some(Some(Self { field, from, sum, udp }))
    }

    /// Makes it right for what the window has become: only there can anything have changed.
    fn finish(&self, window: &mut [u8], program: &OuterProgram) -> Option<()> {
        let mut after = Sum::new();
        after.add(window.get(self.from..)?);
        let field: &mut [u8; 2] = window.get_mut(self.field..)?.first_chunk_mut()?;
        let mut sum = Sum::new();
        sum.add_value(!u16::from_be_bytes(*field));
        sum.add_value(!self.sum.partial());
        sum.add_value(after.partial());
        if self.udp {
            sum.add_value(program.addresses);
            // The pseudo header has the length a second time; a negative number's complement is one less.
            let grown = program.grown;
            sum.add_value(if grown < 0 { !grown.unsigned_abs() } else { grown.unsigned_abs() });
        }
        let new = if self.udp { sum.transport_checksum() } else { sum.checksum() };
        *field = new.to_be_bytes();
        Some(())
    }
}

#[inline]
const fn expired(guard: u8, mark: Mark) -> bool {
    guard != 0 && mark.ttl <= guard
}

/// Stores bytes; `None` if they reach beyond the window.
#[inline]
pub(super) fn put(window: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    window.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(())
}
