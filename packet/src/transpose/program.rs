// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A transposition compiled for one flow, and how it is applied to a packet.
//!
//! Order: what the packet's headers say is read; what must be dropped is; bytes are stored where they are;
//! checksums follow by differences (RFC 1624), most of which are constants of the flow; the front is moved
//! last, so that everything before works on the offsets the parser gave.

use super::{
    ends::{Ends, TransportEdit},
    front::{Front, Place, PushedHeader},
    header::{EcnMap, IpEdit, Mark, Marks},
};
use crate::{Burst, Checksum, DropCause, Layout, OuterLayout, Tunnel, checksum::Sum};

/// A [`Transposition`](super::Transposition) for one flow. It fits all packets with the identity that it
/// was compiled for, whatever options their headers have.
///
/// There is one for each direction of each flow, so it is small: 48 bytes, and nothing on the heap for what
/// is most common, addresses and ports of one packet without a tunnel, or a tunnel taken off.
#[derive(Debug)]
pub struct Program {
    /// What few programs need.
    pub(super) rest: Option<Box<Rest>>,
    pub(super) ip: IpEdit,
    pub(super) transport: TransportEdit,
    pub(super) front: Front,
    /// IP versions of the headers that the packet comes with; 0 for those that are not read.
    pub(super) reads: (u8, u8),
    /// What the TTLs must exceed, if it is not 0: inner, outer.
    pub(super) guards: (u8, u8),
    pub(super) ends: Ends,
    /// How long the stores are: base, offset from it, how many bytes, the bytes; again and again.
    pub(super) stores_len: u8,
    /// The stores, then the bytes of the front, each of both only if it fits here.
    pub(super) bytes: [u8; INLINE],
}

/// Room in a program for its bytes: a store of two, or a VLAN tag put on.
pub(super) const INLINE: usize = 6;
const _: () = assert!(size_of::<Program>() == 48);

/// What few programs need.
#[derive(Debug)]
pub(super) struct Rest {
    /// Stores and bytes of the front that are too long for the program.
    pub(super) bytes: Box<[u8]>,
    /// For [`EcnEdit::Table`](super::header::EcnEdit).
    pub(super) ecn: EcnMap,
    pub(super) group: Group,
}

/// What there is to do for an outer group.
#[derive(Debug)]
pub(super) enum Group {
    /// Nothing.
    None,
    /// It stays, while something in the packet changes.
    Kept(OuterProgram),
    /// It is put on.
    Pushed(PushedHeader),
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

/// What happens to an outer group that stays, if anything in the packet changes.
#[derive(Debug)]
pub(super) struct OuterProgram {
    pub(super) ip: IpEdit,
    pub(super) ecn: EcnMap,
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
    /// Whether the layout of a packet is afterwards what it was before.
    #[inline]
    #[must_use]
    pub const fn keeps_layout(&self) -> bool {
        matches!(self.front.place, Place::Nowhere)
    }

    /// Whether it puts an outer group on.
    #[inline]
    #[must_use]
    pub fn pushes(&self) -> bool {
        matches!(self.rest.as_deref(), Some(Rest { group: Group::Pushed(_), .. }))
    }

    /// If it puts an outer group on: by how much the outer IP packet will be longer than the frame is, which is laid out
    /// so.
    #[inline]
    #[must_use]
    pub fn overhead(&self, layout: &Layout) -> Option<i32> {
        let Group::Pushed(header) = &self.rest.as_deref()?.group else { return None };
        let front = &self.front;
        let more = i32::from(front.tags).saturating_add(front.header.into());
        let less = i32::from(layout.ethernet?).saturating_add(front.popped.into()).saturating_add(header.ip.into());
        Some(more.saturating_sub(less))
    }

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
        let Some(Rest { group: Group::Kept(program), .. }) = self.rest.as_deref() else {
            self.edit(window, layout, &marks, unfinished)?;
            return self.move_front(burst, i, layout, &marks, flow_hash);
        };
        let outer = layout.outer.as_ref().ok_or(beyond)?;
        let cover = Cover::new(window, outer, unfinished).ok_or(beyond)?;
        self.edit(window, layout, &marks, unfinished)?;
        program.apply(window, outer, &marks, unfinished)?;
        self.move_front(burst, i, layout, &marks, flow_hash)?;
        if let Some(cover) = cover {
            cover.finish(burst.window_mut(i), program).ok_or(beyond)?;
        }
        Ok(())
    }

    /// Bytes that it holds besides itself, what an allocator adds apart.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| size_of::<Rest>().saturating_add(rest.bytes.len()))
    }

    /// Everything that leaves the front where it is, and is not the outer group's.
    #[inline(always)]
    fn edit(&self, window: &mut [u8], layout: &Layout, marks: &Marks, unfinished: Checksum) -> Result<(), DropCause> {
        let beyond = DropCause::HeaderBeyondWindow;
        if self.stores_len != 0 {
            self.store(window, layout).ok_or(beyond)?;
        }
        if self.ip.version != 0 {
            let table = self.rest.as_ref().map(|rest| &rest.ecn);
            let at = usize::from(layout.network.ok_or(beyond)?);
            let header: &mut [u8; 20] = window.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(beyond)?;
            self.ends.store_addresses(header);
            self.ip.apply(header, marks, table, 0)?;
        }
        if self.transport.field != 0 {
            let at = layout.transport.ok_or(beyond)?;
            let header = window.get_mut(usize::from(at)..).ok_or(beyond)?;
            self.ends.store_ports(header).ok_or(beyond)?;
            self.transport.apply(header, at, self.ip.addresses, unfinished).ok_or(beyond)?;
        }
        Ok(())
    }

    #[inline]
    fn move_front(
        &self,
        burst: &mut Burst,
        i: usize,
        layout: &Layout,
        marks: &Marks,
        flow_hash: u32,
    ) -> Result<(), DropCause> {
        if self.front.place == Place::Nowhere {
            return Ok(());
        }
        let header = match self.rest.as_deref() {
            Some(Rest { group: Group::Pushed(header), .. }) => Some(header),
            _ => None,
        };
        self.front.apply(self.front_bytes(), header, burst, i, layout, marks, flow_hash)
    }

    #[inline]
    fn stores(&self) -> &[u8] {
        let len = usize::from(self.stores_len);
        let bytes = if len <= INLINE { &self.bytes[..] } else { self.rest.as_ref().map_or(&[][..], |r| &r.bytes) };
        bytes.get(..len).unwrap_or_default()
    }

    /// Tags and header that are put on.
    #[inline]
    fn front_bytes(&self) -> &[u8] {
        let (stores, front) = (usize::from(self.stores_len), self.front.len());
        let rest = self.rest.as_ref().map_or(&[][..], |rest| &rest.bytes);
        let bytes = match (stores <= INLINE, stores.saturating_add(front) <= INLINE) {
            (true, true) => self.bytes.get(stores..),
            (true, false) => Some(rest),
            (false, _) => rest.get(stores..),
        };
        bytes.and_then(|bytes| bytes.get(..front)).unwrap_or_default()
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

    #[inline(never)]
    fn store(&self, window: &mut [u8], layout: &Layout) -> Option<()> {
        let mut rest = self.stores();
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
            // 17 bits at most.
            put(window, usize::from(base).wrapping_add(usize::from(*offset)), bytes)?;
            rest = next;
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
        let at = usize::from(layout.ip);
        let header = window.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(DropCause::HeaderBeyondWindow)?;
        self.ip.apply(header, marks, Some(&self.ecn), self.grown)?;
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
                sum.add_value(self.ip.addresses);
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
            sum.add_value(program.ip.addresses);
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
    let to = window.get_mut(at..)?.get_mut(..bytes.len())?;
    // Of lengths that are known a copy is one load and one store.
    match (bytes.as_array::<2>(), bytes.as_array::<4>(), bytes.as_array::<6>()) {
        (Some(port), ..) => *to.as_mut_array()? = *port,
        (_, Some(address), _) => *to.as_mut_array()? = *address,
        (.., Some(mac)) => *to.as_mut_array()? = *mac,
        _ => to.copy_from_slice(bytes),
    }
    Some(())
}
