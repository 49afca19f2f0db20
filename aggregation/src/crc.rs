// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! CRC-32C (Castagnoli), as in iSCSI (RFC 3720, B.4) and SCTP.

/// The CRC of pieces, one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Crc(u32);

impl Crc {
    /// With `bytes` appended.
    #[inline]
    #[must_use]
    pub(crate) fn with(self, bytes: &[u8]) -> Self {
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    /// The CRC of all.
    #[inline]
    #[must_use]
    pub(crate) const fn value(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_of_the_rfc() {
        assert_eq!(Crc::default().with(b"123456789").value(), 0xe306_9283);
        assert_eq!(Crc::default().with(b"1234").with(b"").with(b"56789").value(), 0xe306_9283);
        assert_eq!(Crc::default().with(&[0; 32]).value(), 0x8a91_36aa); // RFC 3720, B.4
    }
}
