// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Control frames as bytes.
//!
//! ```text
//!  | common header with C and K, groups = 0, 12 bytes                |
//!  | message (8)   | 0 (8)         | node id (16)                    |
//!  | the sender's session (32)                                       |
//!  | the receiver's session as the sender knows it, or 0 (32)        |
//!  | TLVs                                                            |
//! ```
//!
//! The check word covers the whole frame.

use super::{Offer, Reason};
use crate::crc::Crc;
use crate::tlv::{self, CRITICAL};
use crate::wire::{HEADER, HEADER_CHECKED};
use crate::{Cause, Header};

/// Bytes of a control frame before its TLVs.
const FRONT: usize = 24;
/// Bytes of the longest control frame that is sent.
pub const MAX_CONTROL: usize = FRONT + 4 + OFFER_LEN + 4 + MAX_NAME + 8;
/// Bytes of the longest name.
pub const MAX_NAME: usize = 64;
/// Bytes of an offer.
const OFFER_LEN: usize = 16;

/// TLVs of control frames, whose numbers are their own.
const OFFER: u8 = CRITICAL | 1;
const NAME: u8 = 2;
const REASON: u8 = 3;

/// What a control frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control<'a> {
    /// What for.
    pub message: Message,
    /// The sender's node id, never 0.
    pub node: u16,
    /// The sender's session, never 0.
    pub session: u32,
    /// The receiver's session as the sender knows it, or 0.
    pub peer_session: u32,
    /// What the sender can do: in HELLO and HELLO-ACK, always.
    pub offer: Option<Offer>,
    /// The sender's name, for people; not trusted, nor necessarily UTF-8.
    pub name: &'a [u8],
    /// Why a session ends: in BYE.
    pub reason: Option<Reason>,
}

/// Kinds of control frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Message {
    /// Here I am, and this I can do.
    Hello = 1,
    /// I have understood your HELLO, and this I can do.
    HelloAck = 2,
    /// I am still here.
    Keepalive = 3,
    /// I send no more aggregates, and want none.
    Bye = 4,
}

impl<'a> Control<'a> {
    /// Reads a frame, which must be private memory.
    ///
    /// # Errors
    /// As for any frame, and [`Cause::ControlMalformed`]; [`Cause::TlvCritical`] for a TLV that must be known.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Cause> {
        let header = Header::parse(bytes.first_chunk().ok_or(Cause::FrameLength)?)?;
        let bytes = bytes.get(..header.len).ok_or(Cause::FrameLength)?;
        if !header.control || !header.checked || header.groups != 0 {
            return Err(Cause::ControlMalformed);
        }
        let (front, rest) = bytes.split_first_chunk::<HEADER>().ok_or(Cause::FrameLength)?;
        let (word, rest) = rest.split_first_chunk::<4>().ok_or(Cause::FrameLength)?;
        if Crc::default().with(front).with(&[0; 4]).with(rest).value() != u32::from_be_bytes(*word) {
            return Err(Cause::HeaderCheck);
        }
        let body = bytes.get(header.header_len..).ok_or(Cause::FrameLength)?;
        let (&[message, _, n0, n1, s0, s1, s2, s3, p0, p1, p2, p3], tlvs) =
            body.split_first_chunk::<12>().ok_or(Cause::ControlMalformed)?;
        let message = match message {
            1 => Message::Hello,
            2 => Message::HelloAck,
            3 => Message::Keepalive,
            4 => Message::Bye,
            _ => return Err(Cause::ControlMalformed),
        };
        let mut control = Self {
            message,
            node: u16::from_be_bytes([n0, n1]),
            session: u32::from_be_bytes([s0, s1, s2, s3]),
            peer_session: u32::from_be_bytes([p0, p1, p2, p3]),
            offer: None,
            name: &[],
            reason: None,
        };
        control.read_tlvs(tlvs)?;
        let greets = matches!(message, Message::Hello | Message::HelloAck);
        if control.node == 0 || control.session == 0 || greets && control.offer.is_none() {
            return Err(Cause::ControlMalformed);
        }
        Ok(control)
    }

    fn read_tlvs(&mut self, mut area: &'a [u8]) -> Result<(), Cause> {
        while !area.is_empty() {
            let (kind, data, rest) = tlv::split(area).ok_or(Cause::TlvMalformed)?;
            match kind {
                OFFER => {
                    let offer = data.first_chunk().and_then(Offer::parse).ok_or(Cause::ControlMalformed)?;
                    self.offer = Some(offer);
                }
                NAME => self.name = data.get(..MAX_NAME.min(data.len())).unwrap_or_default(),
                REASON => self.reason = data.first().map(|code| Reason::from_code(*code)),
                kind if kind & CRITICAL != 0 => return Err(Cause::TlvCritical),
                _ => {}
            }
            area = rest;
        }
        Ok(())
    }

    /// Writes the frame to the front of `to`, and says how many bytes it has: at most [`MAX_CONTROL`]. 0 if there is no room.
    #[must_use]
    pub fn write(&self, sequence: u16, to: &mut [u8]) -> usize {
        let mut frame = Frame { to, len: HEADER_CHECKED };
        frame.put(&[self.message as u8, 0]);
        frame.put(&self.node.to_be_bytes());
        frame.put(&self.session.to_be_bytes());
        frame.put(&self.peer_session.to_be_bytes());
        if let Some(offer) = &self.offer {
            frame.put_tlv(OFFER, &offer.to_bytes());
        }
        if !self.name.is_empty() {
            frame.put_tlv(NAME, self.name.get(..MAX_NAME.min(self.name.len())).unwrap_or_default());
        }
        if let Some(reason) = self.reason {
            frame.put_tlv(REASON, &[reason.code()]);
        }
        let Frame { to, len } = frame;
        let Some(bytes) = to.get_mut(..len) else { return 0 };
        let header =
            Header { control: true, checked: true, header_len: HEADER_CHECKED, len, groups: 0, stage: 0, sequence };
        let Some((front, rest)) = bytes.split_first_chunk_mut::<HEADER>() else { return 0 };
        let Some((word, body)) = rest.split_first_chunk_mut::<4>() else { return 0 };
        *front = header.to_bytes();
        *word = Crc::default().with(front).with(&[0; 4]).with(body).value().to_be_bytes();
        len
    }
}

/// A frame that is being written; what does not fit is counted, not written.
struct Frame<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl Frame<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(to) = self.to.get_mut(self.len..end) {
            to.copy_from_slice(bytes);
        }
        self.len = end;
    }

    fn put_tlv(&mut self, kind: u8, data: &[u8]) {
        let [len0, len1] = u16::try_from(data.len()).unwrap_or_default().to_be_bytes();
        self.put(&[kind, 0, len0, len1]);
        self.put(data);
        let padding = crate::wire::padded(data.len()).saturating_sub(data.len());
        self.put([0; 3].get(..padding).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::negotiation::Features;

    const OFFERED: Offer = Offer {
        versions: (1, 1),
        encapsulations: 3,
        align_log2: 2,
        max_bytes: 9000,
        max_packets: 256,
        features: Features(0x2d),
        keepalive_ms: 1000,
    };

    fn hello() -> Control<'static> {
        Control {
            message: Message::Hello,
            node: 7,
            session: 0x1234_5678,
            peer_session: 0,
            offer: Some(OFFERED),
            name: b"a",
            reason: None,
        }
    }

    fn bytes(control: &Control<'_>) -> Vec<u8> {
        let mut to = [0xff; MAX_CONTROL];
        let len = control.write(5, &mut to);
        to[..len].to_vec()
    }

    #[test]
    fn a_hello_is_these_bytes() {
        let found = bytes(&hello());
        let wanted = [
            &[0x13, 0xa0, 0, 52, 0, 0, 0, 5][..],
            &found[8..12],
            &[1, 0, 0, 7, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0],
            &[0x81, 0, 0, 16, 1, 1, 3, 2, 0, 0, 0x23, 0x28, 1, 0, 0, 0x2d, 3, 0xe8, 0, 0],
            &[2, 0, 0, 1, b'a', 0, 0, 0],
        ];
        assert_eq!(found, wanted.concat());
    }

    #[test]
    fn what_is_written_is_read() {
        let bye = Control { message: Message::Bye, offer: None, reason: Some(Reason::Duplicate), ..hello() };
        let long = Control { name: &[b'x'; MAX_NAME], reason: Some(Reason::Other(200)), ..hello() };
        for control in [hello(), bye, long] {
            let bytes = bytes(&control);
            assert_eq!(Control::parse(&bytes), Ok(control));
            assert_eq!(Control::parse(&[&bytes[..], &[0; 20]].concat()), Ok(control), "padding behind it");
            for len in 0..bytes.len() {
                assert_eq!(Control::parse(&bytes[..len]), Err(Cause::FrameLength));
                assert_eq!(control.write(5, &mut vec![0; len]), 0);
            }
        }
        assert_eq!(bytes(&long).len(), MAX_CONTROL);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = bytes(&hello());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Control::parse(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_hello_without_an_offer_is_none() {
        assert_eq!(Control::parse(&bytes(&Control { offer: None, ..hello() })), Err(Cause::ControlMalformed));
        assert_eq!(Control::parse(&bytes(&Control { node: 0, ..hello() })), Err(Cause::ControlMalformed));
        assert_eq!(Control::parse(&bytes(&Control { session: 0, ..hello() })), Err(Cause::ControlMalformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Control::parse(&bytes);
        }

        /// Past the check word, too.
        #[test]
        fn any_body_is_answered(body in vec(any::<u8>(), 0..100)) {
            let len = HEADER_CHECKED + body.len();
            let header = Header { control: true, checked: true, header_len: 12, len, groups: 0, stage: 0, sequence: 0 };
            let front = header.to_bytes();
            let word = Crc::default().with(&front).with(&[0; 4]).with(&body).value().to_be_bytes();
            let found = Control::parse(&[&front[..], &word, &body].concat()).map(|control| control.node);
            prop_assert!(!matches!(found, Err(Cause::HeaderCheck | Cause::FrameLength)));
        }
    }
}
