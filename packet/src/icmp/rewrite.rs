// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Changing what an ICMP error quotes, so that all checksums stay right.

use core::net::IpAddr;

use super::{Embedded, EmbeddedEdit, LEN, Ports};
use crate::{
    Checksum, DropCause,
    checksum::Sum,
    parse::transport::{ICMP, ICMPV6, TCP, UDP},
};

/// Where the checksum lies in the error's own header.
const CHECKSUM: u16 = 2;

/// Changes the quoted packet. `checksum` is the state of the frame's own checksum: one that is left
/// unfinished stays so, and will cover what was changed.
///
/// # Errors
/// The packet is to be dropped; its bytes may be changed. [`Untransposable`](DropCause::Untransposable) if
/// an address is of the other version or the quoted packet has no such port, and
/// [`HeaderBeyondWindow`](DropCause::HeaderBeyondWindow) if a checksum that is quoted lies there.
pub fn rewrite_embedded(
    window: &mut [u8],
    embedded: &Embedded,
    edit: &EmbeddedEdit,
    checksum: Checksum,
) -> Result<(), DropCause> {
    let icmp = embedded.ip.checked_sub(8).ok_or(DropCause::HeaderBeyondWindow)?;
    let mut patch = Patch { window, start: icmp.into(), outer: Sum::new() };
    let mut addresses = Sum::new();
    let (src_at, dst_at, len) = if embedded.src.is_ipv4() { (12, 16, 4) } else { (8, 24, 16) };
    for (new, at) in [(edit.src, src_at), (edit.dst, dst_at)] {
        let Some(new) = new else { continue };
        let (bytes, new_len) = octets(new);
        if new_len != len {
            return Err(DropCause::Untransposable);
        }
        let bytes = bytes.get(..len).unwrap_or_default();
        patch.set(usize::from(embedded.ip).saturating_add(at), bytes, &mut [&mut addresses])?;
    }
    if len == 4 {
        patch.adjust(usize::from(embedded.ip).saturating_add(10), addresses, false)?;
    }
    patch.transport(embedded, edit, addresses)?;
    if (checksum != Checksum::Unfinished { start: icmp, offset: CHECKSUM }) {
        patch.finish()?;
    }
    Ok(())
}

/// The window, and how the sum over it from `start` on changed.
struct Patch<'a> {
    window: &'a mut [u8],
    start: usize,
    outer: Sum,
}

impl Patch<'_> {
    /// Stores bytes. How the sum changed is added to `sums`, for which the bytes begin on an even offset,
    /// and to the error's own.
    fn set(&mut self, at: usize, new: &[u8], sums: &mut [&mut Sum]) -> Result<(), DropCause> {
        let end = at.saturating_add(new.len());
        let old = self.window.get_mut(at..end).ok_or(DropCause::HeaderBeyondWindow)?;
        for (i, (old, new)) in old.iter_mut().zip(new).enumerate() {
            for sum in sums.iter_mut() {
                sum.add_change(i, *old, *new);
            }
            self.outer.add_change(at.abs_diff(self.start).wrapping_add(i), *old, *new);
            *old = *new;
        }
        Ok(())
    }

    /// Moves the checksum at an offset by a change of what it covers. If `optional`, 0 says that there is
    /// none, and is not sent by one that there is.
    fn adjust(&mut self, at: usize, change: Sum, optional: bool) -> Result<(), DropCause> {
        let old = *self.window.get(at..).and_then(<[u8]>::first_chunk).ok_or(DropCause::HeaderBeyondWindow)?;
        if optional && old == [0, 0] {
            return Ok(());
        }
        let mut sum = change;
        sum.add_value(!u16::from_be_bytes(old));
        let new = if optional { sum.transport_checksum() } else { sum.checksum() };
        self.set(at, &new.to_be_bytes(), &mut [])
    }

    fn transport(&mut self, embedded: &Embedded, edit: &EmbeddedEdit, addresses: Sum) -> Result<(), DropCause> {
        let (src_at, dst_at) = match embedded.ports {
            Ports::None => (None, None),
            Ports::Both => (Some(0), Some(2)),
            Ports::Echo => (Some(4), None),
        };
        let header = usize::from(embedded.transport);
        // Only ICMP of IPv4 has no pseudo-header.
        let mut change = if embedded.proto == ICMP { Sum::new() } else { addresses };
        for (new, at) in [(edit.src_port, src_at), (edit.dst_port, dst_at)] {
            let Some(new) = new else { continue };
            let at = header.saturating_add(at.ok_or(DropCause::Untransposable)?);
            self.set(at, &new.to_be_bytes(), &mut [&mut change])?;
        }
        let field = match embedded.proto {
            TCP => 16,
            UDP => 6,
            ICMP if embedded.src.is_ipv4() => 2,
            ICMPV6 if embedded.src.is_ipv6() => 2,
            _ => return Ok(()),
        };
        let at = header.saturating_add(field);
        if at.saturating_add(2) > embedded.end {
            return Ok(());
        }
        self.adjust(at, change, embedded.proto == UDP)
    }

    /// The error's own checksum, which covers all that was stored.
    fn finish(&mut self) -> Result<(), DropCause> {
        let at = self.start.saturating_add(CHECKSUM.into());
        let change = self.outer;
        self.adjust(at, change, false)
    }
}

const _: () = assert!(LEN == 8, "the quotation follows the header of the error");

fn octets(address: IpAddr) -> ([u8; 16], usize) {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 4)
        }
        IpAddr::V6(v6) => (v6.octets(), 16),
    }
}
