// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Captured packets on their way from a worker to who writes them: records in a ring of bytes.
//!
//! A record is a header of 32 bytes and then the packet, as far as it was copied. Records lie one behind the other, and may wrap.

use rtrb::{Consumer, Producer, RingBuffer};

/// Bytes before a record's packet.
pub(super) const HEADER: usize = 32;

/// What is known of a captured packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// When, in nanoseconds of the worker's clock.
    pub(super) at_ns: u64,
    /// Bytes of the whole frame.
    pub(super) length: u32,
    /// Bytes of it that follow.
    pub(super) captured: u32,
    /// Packets of this queue pair that did not fit into the ring since the one before.
    pub(super) lost: u32,
    pub(super) pair: u16,
    /// Whether the node received it.
    pub(super) inward: bool,
}

/// A ring for records: of so many bytes.
pub(super) fn ring(bytes: usize) -> (Records, Reader) {
    let (producer, consumer) = RingBuffer::new(bytes);
    (Records { ring: producer }, Reader { ring: consumer, next: None })
}

/// The worker's end.
#[derive(Debug)]
pub(super) struct Records {
    ring: Producer<u8>,
}

/// The control plane's.
#[derive(Debug)]
pub(super) struct Reader {
    ring: Consumer<u8>,
    /// The header of the next record, which has been looked at.
    next: Option<Head>,
}

impl Records {
    /// Appends a record; `packet` copies bytes from a place of the packet on. `false`: there is no room.
    pub(super) fn append(&mut self, head: Head, packet: impl Fn(usize, &mut [u8])) -> bool {
        let captured = head.captured as usize;
        let Ok(mut chunk) = self.ring.write_chunk(HEADER + captured) else { return false };
        let header = head.to_bytes();
        let mut at = 0;
        let (first, second) = chunk.as_mut_slices();
        for room in [first, second] {
            let (to, behind) = room.split_at_mut(room.len().min(HEADER.saturating_sub(at)));
            let from = header.get(at.min(HEADER)..).unwrap_or_default();
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            at += to.len();
            if !behind.is_empty() {
                packet(at - HEADER, behind);
                at += behind.len();
            }
        }
        chunk.commit_all();
        true
    }
}

impl Reader {
    /// The header of the next record.
    pub(super) fn peek(&mut self) -> Option<Head> {
        if self.next.is_none() {
            let chunk = self.ring.read_chunk(HEADER).ok()?;
            let mut bytes = [0; HEADER];
            let (first, second) = chunk.as_slices();
            bytes.iter_mut().zip(first.iter().chain(second)).for_each(|(to, from)| *to = *from);
            self.next = Some(Head::from_bytes(&bytes));
        }
        self.next
    }

    /// Takes the next record, and hands its packet, in two pieces, to `with`.
    pub(super) fn take<R>(&mut self, with: impl FnOnce(Head, [&[u8]; 2]) -> R) -> Option<R> {
        let head = self.peek()?;
        self.next = None;
        let size = HEADER + head.captured as usize;
        // Both parts of a record were committed at once.
        let chunk = self.ring.read_chunk(size).ok()?;
        let (first, second) = chunk.as_slices();
        let pieces = match first.get(HEADER..) {
            Some(packet) => [packet, second],
            None => [&[][..], second.get(HEADER - first.len()..).unwrap_or_default()],
        };
        let result = with(head, pieces);
        chunk.commit_all();
        Some(result)
    }

    /// Whether nothing will come any more, besides what is there.
    pub(super) fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl Head {
    fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let fields = self.at_ns.to_le_bytes().into_iter();
        let fields = fields.chain(self.length.to_le_bytes()).chain(self.captured.to_le_bytes());
        let fields = fields.chain(self.lost.to_le_bytes()).chain(self.pair.to_le_bytes()).chain([self.inward.into()]);
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, c0, c1, c2, c3, m0, m1, m2, m3, p0, p1, inward, ..] =
            *bytes;
        Self {
            at_ns: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            captured: u32::from_le_bytes([c0, c1, c2, c3]),
            lost: u32::from_le_bytes([m0, m1, m2, m3]),
            pair: u16::from_le_bytes([p0, p1]),
            inward: inward != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(packet: &[u8]) -> impl Fn(usize, &mut [u8]) + '_ {
        |at, room| room.copy_from_slice(&packet[at..at + room.len()])
    }

    #[test]
    fn records_arrive_as_they_were_wherever_they_wrap() {
        for capacity in 100..180 {
            let (mut records, mut reader) = ring(capacity);
            for n in 0..40_u32 {
                let packet: Vec<u8> = (0..n).map(|i| (i + n).to_le_bytes()[0]).collect();
                let head = Head {
                    at_ns: u64::MAX - u64::from(n),
                    length: 1000 + n,
                    captured: n,
                    lost: 7 * n,
                    pair: 300,
                    inward: n % 2 == 0,
                };
                assert_eq!(reader.peek(), None);
                assert!(records.append(head, copy(&packet)));
                assert_eq!((reader.peek(), reader.peek()), (Some(head), Some(head)));
                let taken = reader.take(|head, pieces| (head, pieces.concat()));
                assert_eq!(taken, Some((head, packet)), "{capacity} {n}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let (mut records, mut reader) = ring(100);
        let head = |captured| Head { captured, ..Head::default() };
        assert!(!records.append(head(69), copy(&[1; 69])));
        assert!(records.append(head(68), copy(&[1; 68])));
        assert!(!records.append(head(0), copy(&[])));
        assert!(reader.take(|_, pieces| assert_eq!(pieces.concat(), [1; 68])).is_some());
        assert!(records.append(head(0), copy(&[])));
        assert!(!reader.is_abandoned());
        drop(records);
        assert!(reader.is_abandoned() && reader.peek().is_some());
    }
}
