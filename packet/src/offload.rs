// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a sender left undone in its frame.
//!
//! This is the normalised form that travels with a packet. The virtio-net header, which says the
//! same in other words, never passes the backend.

use crate::segment::is_of_header;

/// What the sender of a frame left for somebody else to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Set when the frame is to be cut into segments before it meets a link.
    pub segmentation: Option<Segmentation>,
}

/// State of a frame's transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing is known: what is in the field is what the sender wrote, and the receiver checks it.
    #[default]
    Unknown,
    /// Somebody trusted verified it already.
    Verified,
    /// The field holds only the pseudo-header's sum. To finish: sum from `start` to the end of the
    /// frame, store the complement at `start + offset`.
    Unfinished {
        /// Where summing starts, in bytes from the start of the frame.
        start: u16,
        /// Where the checksum field lies, in bytes from `start`.
        offset: u16,
    },
}

/// How an oversized frame is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What the frame carries.
    pub kind: GsoKind,
    /// Whether the sender says that the frame's CWR flag is for the first segment only (RFC 3168); TCP only.
    /// Segmentation in software treats it so in any case.
    pub ecn: bool,
    /// Transport payload of each segment in bytes; only the last may be shorter.
    pub size: u16,
    /// The sender's idea of the length of all headers; a hint which nothing may rely on.
    pub header_len: u16,
}

/// What an oversized frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, to be cut into datagrams (virtio's `GSO_UDP_L4`).
    Udp,
}

/// Offload metadata that contradicts its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The checksum field does not lie within the frame.
    #[error("checksum field at {start}+{offset} lies beyond a frame of {frame_len} bytes")]
    ChecksumBeyondFrame {
        /// Where summing starts.
        start: u16,
        /// Where the field lies, from `start`.
        offset: u16,
        /// Length of the frame.
        frame_len: u32,
    },
    /// The checksum field lies beyond the part of the frame that may be edited.
    #[error("checksum field at {at} lies beyond the window of {window_len} bytes")]
    ChecksumBeyondWindow {
        /// Where the field lies in the frame.
        at: usize,
        /// Length of the part that may be edited.
        window_len: usize,
    },
    /// The checksum field is not that of a header that has one.
    #[error("no header has its checksum at {start}+{offset}")]
    ChecksumMisplaced {
        /// Where summing starts.
        start: u16,
        /// Where the field lies, from `start`.
        offset: u16,
    },
    /// A frame to be segmented must have an unfinished checksum (virtio 1.3, 5.1.6.2).
    #[error("segmentation is asked for, but the checksum is not left unfinished")]
    SegmentationWithoutChecksum,
    /// Segments would carry no payload.
    #[error("segmentation into segments of 0 bytes")]
    ZeroSegmentSize,
}

impl Offload {
    /// Nothing is left undone and nothing is known.
    pub const NONE: Self = Self { checksum: Checksum::Unknown, segmentation: None };

    /// Whether the frame may go to a destination that has negotiated no offload at all.
    #[inline]
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        !matches!(self.checksum, Checksum::Unfinished { .. }) && self.segmentation.is_none()
    }

    /// Checks the metadata against the frame's length, so that a sender cannot make its receiver
    /// read or write beyond the frame.
    ///
    /// # Errors
    /// The first contradiction found; the frame is to be dropped with
    /// [`DropCause::BadOffload`](crate::DropCause::BadOffload).
    #[inline]
    pub const fn check(&self, frame_len: u32) -> Result<(), OffloadError> {
        match self.checksum {
            Checksum::Unfinished { start, offset } => {
                // At most 2 * 65535 + 2: no overflow.
                if (start as u32).saturating_add(offset as u32).saturating_add(2) > frame_len {
                    return Err(OffloadError::ChecksumBeyondFrame { start, offset, frame_len });
                }
            }
            Checksum::Unknown | Checksum::Verified => {
                if self.segmentation.is_some() {
                    return Err(OffloadError::SegmentationWithoutChecksum);
                }
            }
        }
        match self.segmentation {
            Some(Segmentation { size: 0, .. }) => Err(OffloadError::ZeroSegmentSize),
            _ => Ok(()),
        }
    }

    /// Checks that an unfinished checksum of the frame that begins with `window` is that of a TCP, UDP or GRE header, in a
    /// tunnel or not, so that a sender cannot have anything else of the frame written over once policy has judged it.
    ///
    /// # Errors
    /// If it is not, or the headers before it are not understood; the frame is to be dropped with
    /// [`DropCause::BadOffload`](crate::DropCause::BadOffload).
    #[inline]
    pub fn check_place(&self, window: &[u8]) -> Result<(), OffloadError> {
        match self.checksum {
            Checksum::Unfinished { start, offset } if !is_of_header(window, start, offset) => {
                Err(OffloadError::ChecksumMisplaced { start, offset })
            }
            _ => Ok(()),
        }
    }
}

impl Offload {
    /// The metadata after `by` bytes were put before the frame, or taken from its front if negative.
    /// `None` if an offset would leave its range.
    pub(crate) fn moved(&self, by: i32) -> Option<Self> {
        let shift = |offset: u16| u16::try_from(i32::from(offset).checked_add(by)?).ok();
        let checksum = match self.checksum {
            Checksum::Unfinished { start, offset } => Checksum::Unfinished { start: shift(start)?, offset },
            other => other,
        };
        let segmentation = self.segmentation.map(|s| Segmentation {
            // Only a hint: where it makes no sense, "unknown" is as good.
            header_len: shift(s.header_len).unwrap_or(0),
            ..s
        });
        Some(Self { checksum, segmentation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP4: Segmentation = Segmentation { kind: GsoKind::TcpV4, ecn: false, size: 1460, header_len: 54 };

    #[test]
    fn the_checksum_field_must_lie_within_the_frame() {
        let offload = Offload { checksum: Checksum::Unfinished { start: 34, offset: 16 }, segmentation: None };
        assert_eq!(offload.check(52), Ok(()));
        assert_eq!(offload.check(51), Err(OffloadError::ChecksumBeyondFrame { start: 34, offset: 16, frame_len: 51 }));
        let far = Offload { checksum: Checksum::Unfinished { start: u16::MAX, offset: u16::MAX }, segmentation: None };
        assert_eq!(far.check(131_072), Ok(()));
        assert!(far.check(131_071).is_err());
    }

    #[test]
    fn segmentation_needs_a_checksum_and_a_size() {
        let checksum = Checksum::Unfinished { start: 34, offset: 16 };
        let good = Offload { checksum, segmentation: Some(TCP4) };
        assert_eq!(good.check(4000), Ok(()));
        assert_eq!(
            Offload { checksum: Checksum::Verified, ..good }.check(4000),
            Err(OffloadError::SegmentationWithoutChecksum)
        );
        let zero = Offload { checksum, segmentation: Some(Segmentation { size: 0, ..TCP4 }) };
        assert_eq!(zero.check(4000), Err(OffloadError::ZeroSegmentSize));
    }

    #[test]
    fn finished_means_nothing_is_left_to_do() {
        assert!(Offload::NONE.is_finished());
        assert!(Offload { checksum: Checksum::Verified, segmentation: None }.is_finished());
        assert!(!Offload { checksum: Checksum::Unfinished { start: 0, offset: 0 }, segmentation: None }.is_finished());
        assert!(!Offload { checksum: Checksum::Unknown, segmentation: Some(TCP4) }.is_finished());
    }

    #[test]
    fn metadata_is_small() {
        assert_eq!(size_of::<Offload>(), 12);
    }
}
