// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether frames arrive as they were sent: all that open or close flows, and a sample of the others.

use clap::ValueEnum;

use super::flows::{self, Side, Tuple};
use super::frames::{self, ADDRESSES, LONGEST, PORTS, SEQUENCE, Transport};

/// In what shape frames are to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Expect {
    /// As they were sent, every byte
    Unchanged,
    /// With other headers of the same length, valid checksums and the same payload
    Rewritten,
}

impl Expect {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Rewritten => "rewritten",
        }
    }
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("{received} bytes arrived of a frame of {sent}")]
    Length { sent: usize, received: usize },
    #[error("byte {at} arrived as {received:#04x} and was sent as {sent:#04x}")]
    Byte { at: usize, sent: u8, received: u8 },
    #[error("it is no longer IPv4")]
    Network,
    #[error("the checksum of its {layer} header is wrong")]
    Checksum { layer: &'static str },
    #[error("it is of none of the flows sent")]
    Flow,
}

/// The flow of a frame, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {fault}", flow.map_or_else(|| "a frame".to_owned(), named))]
pub(super) struct Changed {
    pub(super) flow: Option<u32>,
    pub(super) fault: Fault,
}

/// A flow as errors name it.
pub(super) fn named(flow: u32) -> String {
    let Tuple { client, client_port, server, server_port } = Tuple::of(flow);
    format!("flow {flow} ({client}:{client_port} > {server}:{server_port})")
}

/// Looks at frames, and keeps in mind the first one that is not as it should be.
#[derive(Debug)]
pub(super) struct Inspector {
    transport: Transport,
    size: u32,
    expect: Expect,
    /// Frames looked at, and how many of them were wrong.
    pub(super) inspected: u64,
    pub(super) changed: u64,
    pub(super) first: Option<Changed>,
}

impl Inspector {
    pub(super) fn new(transport: Transport, size: u32, expect: Expect) -> Self {
        Self { transport, size: size.min(LONGEST), expect, inspected: 0, changed: 0, first: None }
    }

    /// A data frame has arrived at `to`. `received` is its whole length if that is known; `frame` may be its beginning only.
    pub(super) fn data(&mut self, to: Side, frame: &[u8], received: Option<usize>) {
        let flow = flow_of(to, frame);
        let verdict = match (self.expect, flow) {
            (Expect::Unchanged, None) => Err(Fault::Flow),
            (_, flow) => {
                // Headers of a rewritten frame are not compared, so any flow's will do.
                let mut sent = frames::data(self.transport, to.other(), flow.unwrap_or(0), self.size);
                let word =
                    |at| frame.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes);
                let numbers = if self.transport == Transport::Tcp { word(SEQUENCE) } else { 0 };
                frames::write_stamp(&mut sent, self.transport, word(self.transport.stamp_at()), numbers);
                self.judge(&sent, frame, received, self.transport.pattern_at())
            }
        };
        self.enter(flow, verdict);
    }

    /// A frame that opens or closes a flow has arrived whole; `sent` is what it should be.
    pub(super) fn signal(&mut self, flow: u32, sent: &[u8], received: &[u8]) {
        let same_after = if self.transport == Transport::Tcp { SEQUENCE } else { self.transport.payload_at() };
        let verdict = self.judge(sent, received, Some(received.len()), same_after);
        self.enter(Some(flow), verdict);
    }

    fn enter(&mut self, flow: Option<u32>, verdict: Result<(), Fault>) {
        self.inspected += 1;
        if let Err(fault) = verdict {
            self.changed += 1;
            self.first.get_or_insert(Changed { flow, fault });
        }
    }

    /// `same_after`: where the part begins that no rewriting changes, but for the transport layer's checksum.
    fn judge(&self, sent: &[u8], frame: &[u8], received: Option<usize>, same_after: usize) -> Result<(), Fault> {
        if let Some(received) = received.filter(|&received| received != sent.len()) {
            return Err(Fault::Length { sent: sent.len(), received });
        }
        let from = match self.expect {
            Expect::Unchanged => 0,
            Expect::Rewritten => {
                self.check_headers(sent, frame)?;
                same_after
            }
        };
        let sum_at = self.transport.checksum_at();
        let compared = |at: usize| self.expect == Expect::Unchanged || !(sum_at..sum_at + 2).contains(&at);
        let mut pairs = sent.iter().zip(frame).enumerate().skip(from);
        match pairs.find(|(at, (sent, received))| sent != received && compared(*at)) {
            Some((at, (&sent, &received))) => Err(Fault::Byte { at, sent, received }),
            None => Ok(()),
        }
    }

    fn check_headers(&self, sent: &[u8], frame: &[u8]) -> Result<(), Fault> {
        if frame.get(12..15) != Some(&[0x08, 0x00, 0x45]) {
            return Err(Fault::Network);
        }
        if frames::network_residue(frame) != 0 {
            return Err(Fault::Checksum { layer: "IPv4" });
        }
        let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        // Of a beginning there is no sum.
        if frame.len() == sent.len() && frames::residue(frame, self.transport, end) != 0 {
            return Err(Fault::Checksum { layer: "transport" });
        }
        Ok(())
    }
}

/// The flow of a frame that `to` has received, by its client.
pub(super) fn flow_of(to: Side, frame: &[u8]) -> Option<u32> {
    let addresses: [u8; 8] = frame.get(ADDRESSES..ADDRESSES + 8)?.try_into().ok()?;
    let ports: [u8; 4] = frame.get(PORTS..PORTS + 4)?.try_into().ok()?;
    let ([a, b, c, d, e, f, g, h], [i, j, k, l]) = (addresses, ports);
    let (client, port) = match to {
        Side::A => ([e, f, g, h], [k, l]),
        Side::B => ([a, b, c, d], [i, j]),
    };
    flows::number(u32::from_be_bytes(client), u16::from_be_bytes(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frames::Signal;
    use crate::bench::stamp::stamp;

    const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

    fn frame(transport: Transport) -> Vec<u8> {
        let mut frame = frames::data(transport, Side::B, 77, 100);
        frames::write_stamp(&mut frame, transport, stamp(1, 5), if transport == Transport::Tcp { 9 << 40 } else { 0 });
        frame
    }

    fn fault(transport: Transport, expect: Expect, frame: &[u8]) -> Option<Fault> {
        let mut inspector = Inspector::new(transport, 100, expect);
        inspector.data(Side::A, frame, Some(frame.len()));
        assert_eq!((inspector.inspected, inspector.changed), (1, u64::from(inspector.first.is_some())));
        inspector.first.map(|changed| changed.fault)
    }

    #[test]
    fn every_changed_byte_is_found() {
        for transport in BOTH {
            assert_eq!(fault(transport, Expect::Unchanged, &frame(transport)), None);
            assert_eq!(fault(transport, Expect::Rewritten, &frame(transport)), None);
            for at in 0..100 {
                let mut frame = frame(transport);
                frame[at] ^= 1;
                assert!(fault(transport, Expect::Unchanged, &frame).is_some(), "{transport:?} {at}");
                // MAC addresses are in no checksum.
                assert_eq!(fault(transport, Expect::Rewritten, &frame).is_some(), at >= 12, "{transport:?} {at}");
            }
            let short = &frame(transport)[..99];
            assert_eq!(fault(transport, Expect::Unchanged, short), Some(Fault::Length { sent: 100, received: 99 }));
        }
    }

    #[test]
    fn headers_may_be_rewritten_if_the_checksums_follow() {
        for transport in BOTH {
            let mut frame = frame(transport);
            let update = |frame: &mut Vec<u8>, at: usize, old: [u8; 2], new: [u8; 2]| {
                let sum = u16::from_be_bytes([frame[at], frame[at + 1]]);
                let sum = packet::checksum::update(sum, u16::from_be_bytes(old), u16::from_be_bytes(new));
                frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            };
            frame[22] = 63;
            update(&mut frame, 24, [64, 0], [63, 0]);
            let old = [frame[30], frame[31]];
            frame[30..32].copy_from_slice(&[192, 168]);
            update(&mut frame, 24, old, [192, 168]);
            assert_eq!(fault(transport, Expect::Rewritten, &frame), Some(Fault::Checksum { layer: "transport" }));
            update(&mut frame, transport.checksum_at(), old, [192, 168]);
            assert_eq!(fault(transport, Expect::Rewritten, &frame), None);
            assert_eq!(fault(transport, Expect::Unchanged, &frame), Some(Fault::Flow));
        }
    }

    #[test]
    fn of_a_beginning_the_beginning_is_compared() {
        let whole = frame(Transport::Udp);
        let mut inspector = Inspector::new(Transport::Udp, 100, Expect::Rewritten);
        inspector.data(Side::A, &whole[..80], None);
        assert_eq!((inspector.changed, inspector.inspected), (0, 1));
        let changed = Changed { flow: Some(0), fault: Fault::Network };
        assert_eq!(changed.to_string(), "flow 0 (10.0.0.1:16384 > 10.128.0.0:9000): it is no longer IPv4");
    }

    #[test]
    fn signals_are_compared_whole() {
        let say = |sequence| frames::signal(Side::A, 4, Signal { flags: 2, sequence, acknowledged: 0, longest: 10 });
        let mut inspector = Inspector::new(Transport::Tcp, 64, Expect::Unchanged);
        inspector.signal(4, &say(1), &say(1));
        assert_eq!(inspector.first, None);
        for expect in [Expect::Unchanged, Expect::Rewritten] {
            let mut inspector = Inspector::new(Transport::Tcp, 64, expect);
            inspector.signal(4, &say(1), &say(2));
            assert!(matches!(inspector.first, Some(Changed { flow: Some(4), fault: Fault::Byte { at: 41, .. } })));
        }
    }
}
