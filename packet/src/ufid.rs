// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What a packet is called: the unified flow identity (VFP, 5.1), all fields that policy can match.
//!
//! # Theory of operation
//!
//! A packet has an *inner* group of headers, its own, and if it is tunnelled an *outer* group with the
//! tunnel's key. Without a tunnel the outer group is zero. Fields that change from packet to packet of
//! one flow (TTL, ECN, TCP flags, lengths, IPv4 identification, the outer UDP source port) are not part
//! of it.
//!
//! Everything is in 14 words, so that comparing and hashing are a few instructions. The first eight say
//! all there is to say about a packet without IPv6; the other six are the upper parts of IPv6 addresses,
//! and zero if there are none. A table of flows can therefore keep most keys in one cache line.
//!
//! ```text
//!  word 0 | destination MAC 48 | EtherType 16             8 | source, bits 32..96
//!       1 | source MAC 48      | VLAN 16                  9 | source, bits 96..128   | destination, 32..64
//!       2 | source IP 32       | destination IP 32       10 | destination, bits 64..128
//!       3 | L4 source 16 | L4 destination 16 |           11 | outer source, bits 32..96
//!         | protocol 8 | DSCP 8 | IP version 8 |         12 | outer source, 96..128  | outer destination, 32..64
//!         | fragment 8                                   13 | outer destination, bits 64..128
//!       4 | outer destination MAC 48 | second VLAN 16
//!       5 | outer source MAC 48      | outer VLAN 16
//!       6 | outer source IP 32 | outer destination IP 32
//!       7 | tunnel key 32 | tunnel 8 | outer DSCP 8 | outer IP version 8 | 8 zero
//! ```

use std::fmt;

/// Words of a [`Ufid`].
pub const WORDS: usize = 14;
/// Words that say everything about a packet without IPv6.
pub const NARROW_WORDS: usize = 8;

/// The identity of a packet's flow; see the head of the file for the layout.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C, align(16))]
pub struct Ufid {
    words: [u64; WORDS],
}

/// Declares the fields once: variant, label, bits, and where they lie.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident => $label:literal, $bits:literal, $place:expr;)+) => {
        /// A field of a [`Ufid`]. MAC addresses are values in the order of the wire (the first octet is
        /// the highest), as all others are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Field {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Field {
            /// Every field, in the order of [`Field::index`].
            pub const ALL: [Self; [$($bits),+].len()] = [$(Self::$variant),+];

            /// The field's name, in `snake_case`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// How many bits its values have.
            #[must_use]
            pub const fn bits(self) -> u32 {
                match self { $(Self::$variant => $bits,)+ }
            }

            const fn place(self) -> Place {
                match self { $(Self::$variant => $place,)+ }
            }
        }
    };
}

/// Where a field lies.
enum Place {
    /// `bits()` bits of a word from this shift on.
    Word(usize, u32),
    /// An address: the low 32 bits in a word from a shift on, the upper 96 from a word on, from a bit on.
    Address { low: usize, shift: u32, high: usize, half: bool },
}

const fn word(at: usize, shift: u32) -> Place {
    Place::Word(at, shift)
}

fields! {
    /// Destination MAC address.
    EthDst => "eth_dst", 48, word(0, 0);
    /// Source MAC address.
    EthSrc => "eth_src", 48, word(1, 0);
    /// EtherType behind all VLAN tags; 0 for an 802.3 length.
    EtherType => "ether_type", 16, word(0, 48);
    /// First VLAN tag: priority, [`VLAN_PRESENT`] in place of the DEI bit, VLAN id; 0 if there is none.
    Vlan => "vlan", 16, word(1, 48);
    /// Second VLAN tag, in the same form.
    SecondVlan => "second_vlan", 16, word(4, 48);
    /// 4 or 6; 0 for what is not IP.
    IpVersion => "ip_version", 8, word(3, 48);
    /// Source address: IPv4 in the low 32 bits, IPv6 in all; of ARP the sender's.
    IpSrc => "src_ip", 128, Place::Address { low: 2, shift: 0, high: 8, half: false };
    /// Destination address; of ARP the target's.
    IpDst => "dst_ip", 128, Place::Address { low: 2, shift: 32, high: 9, half: true };
    /// IP protocol, behind all IPv6 extension headers; of ARP the low byte of the operation.
    IpProto => "ip_proto", 8, word(3, 32);
    /// Differentiated services code point, 0 to 63.
    Dscp => "dscp", 8, word(3, 40);
    /// [`Fragment`] as a number.
    Fragment => "fragment", 8, word(3, 56);
    /// Source port of TCP and UDP; identifier of an ICMP echo; 0 for all else and later fragments.
    L4Src => "src_port", 16, word(3, 0);
    /// Destination port of TCP and UDP; type and code of ICMP; 0 for all else and later fragments.
    L4Dst => "dst_port", 16, word(3, 16);
    /// [`Tunnel`] as a number.
    Tunnel => "tunnel", 8, word(7, 32);
    /// VXLAN and Geneve network identifier, NVGRE subnet identifier, or GRE key.
    TunnelKey => "tunnel_key", 32, word(7, 0);
    /// Destination MAC address of the outer group.
    OuterEthDst => "outer_eth_dst", 48, word(4, 0);
    /// Source MAC address of the outer group.
    OuterEthSrc => "outer_eth_src", 48, word(5, 0);
    /// VLAN tag of the outer group, as [`Field::Vlan`].
    OuterVlan => "outer_vlan", 16, word(5, 48);
    /// 4 or 6 if there is a tunnel, else 0.
    OuterIpVersion => "outer_ip_version", 8, word(7, 48);
    /// Source address of the outer group.
    OuterIpSrc => "outer_src_ip", 128, Place::Address { low: 6, shift: 0, high: 11, half: false };
    /// Destination address of the outer group.
    OuterIpDst => "outer_dst_ip", 128, Place::Address { low: 6, shift: 32, high: 12, half: true };
    /// DSCP of the outer group.
    OuterDscp => "outer_dscp", 8, word(7, 40);
}

/// Set in a VLAN field when there is a tag, in place of its DEI bit.
pub const VLAN_PRESENT: u16 = 0x1000;

/// Which part of an IP packet a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole = 0,
    /// The first fragment, which has the L4 header.
    First = 1,
    /// A later one, which has not.
    Later = 2,
}

/// What carries the inner group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tunnel {
    /// There is no outer group.
    #[default]
    None = 0,
    /// VXLAN over UDP port 4789 (RFC 7348).
    Vxlan = 1,
    /// NVGRE: GRE with a key and an Ethernet payload (RFC 7637); the flow id byte is not matched.
    Nvgre = 2,
    /// Geneve over UDP port 6081 (RFC 8926).
    Geneve = 3,
    /// GRE with an IP payload (RFC 2784, 2890): the inner group has no Ethernet header.
    Gre = 4,
}

impl Ufid {
    /// All fields zero.
    pub const ZERO: Self = Self { words: [0; WORDS] };

    /// The value of a field.
    #[inline]
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "the places are constants below WORDS"
    )]
    pub const fn get(&self, field: Field) -> u128 {
        match field.place() {
            Place::Word(at, shift) => ((self.words[at] >> shift) & mask(field.bits())) as u128,
            Place::Address { low, shift, high, half } => {
                let low = (self.words[low] >> shift) & 0xffff_ffff;
                let (a, b) = (self.words[high] as u128, self.words[high + 1] as u128);
                let upper = if half { a >> 32 | b << 32 } else { a | (b & 0xffff_ffff) << 64 };
                low as u128 | upper << 32
            }
        }
    }

    /// Sets a field to the low bits of `value`.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "parts of the value")]
    #[expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "the places are constants below WORDS"
    )]
    pub const fn set(&mut self, field: Field, value: u128) {
        match field.place() {
            Place::Word(at, shift) => {
                let mask = mask(field.bits());
                self.words[at] = self.words[at] & !(mask << shift) | (value as u64 & mask) << shift;
            }
            Place::Address { low, shift, high, half } => {
                let lowest = value as u64 & 0xffff_ffff;
                self.words[low] = self.words[low] & !(0xffff_ffff << shift) | lowest << shift;
                let upper = value >> 32;
                if half {
                    self.words[high] = self.words[high] & 0xffff_ffff | (upper as u64) << 32;
                    self.words[high + 1] = (upper >> 32) as u64;
                } else {
                    self.words[high] = upper as u64;
                    self.words[high + 1] = self.words[high + 1] & !0xffff_ffff | (upper >> 64) as u64;
                }
            }
        }
    }

    /// The same with one field set: for building identities in one expression.
    #[must_use]
    pub const fn with(mut self, field: Field, value: u128) -> Self {
        self.set(field, value);
        self
    }

    /// All words.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// From words, as [`words`](Self::words) gave them.
    #[inline]
    #[must_use]
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        Self { words }
    }

    /// The first [`NARROW_WORDS`] words, if they say everything.
    #[inline]
    #[must_use]
    pub fn narrow(&self) -> Option<&[u64; NARROW_WORDS]> {
        let [_, _, _, _, _, _, _, _, high @ ..] = &self.words;
        let wide = high.iter().fold(0, |all, word| all | word);
        if wide == 0 { self.words.first_chunk() } else { None }
    }
}

impl Field {
    /// Number of fields.
    pub const COUNT: usize = Self::ALL.len();

    /// Position in [`Field::ALL`].
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Debug for Ufid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_struct("Ufid");
        for field in Field::ALL.into_iter().filter(|field| self.get(*field) != 0) {
            map.field(field.label(), &format_args!("{:#x}", self.get(field)));
        }
        map.finish()
    }
}

#[expect(clippy::arithmetic_side_effects, reason = "fields of a word have 1 to 64 bits")]
const fn mask(bits: u32) -> u64 {
    u64::MAX >> (64 - bits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn low_bits(value: u128, field: Field) -> u128 {
        if field.bits() == 128 { value } else { value & ((1 << field.bits()) - 1) }
    }

    proptest! {
        #[test]
        fn fields_are_apart(writes in prop::collection::vec((0..Field::COUNT, any::<u128>()), 0..60)) {
            let mut ufid = Ufid::ZERO;
            let mut model = [0; Field::COUNT];
            for (index, value) in writes {
                ufid.set(Field::ALL[index], value);
                model[index] = low_bits(value, Field::ALL[index]);
                for field in Field::ALL {
                    prop_assert_eq!(ufid.get(field), model[field.index()], "{:?}", field);
                }
            }
            let addresses = [Field::IpSrc, Field::IpDst, Field::OuterIpSrc, Field::OuterIpDst];
            let narrow = addresses.iter().all(|field| model[field.index()] >> 32 == 0);
            prop_assert_eq!(ufid.narrow().is_some(), narrow);
            prop_assert_eq!(Ufid::from_words(*ufid.words()), ufid);
        }
    }

    #[test]
    fn every_bit_but_eight_belongs_to_a_field() {
        let mut ufid = Ufid::ZERO;
        for field in Field::ALL {
            ufid.set(field, u128::MAX);
        }
        let set: u32 = ufid.words().iter().map(|word| word.count_ones()).sum();
        assert_eq!(set, Field::ALL.iter().map(|field| field.bits()).sum::<u32>());
        assert_eq!(set, 64 * 14 - 8);
    }

    #[test]
    fn labels_are_unique() {
        let labels: std::collections::HashSet<_> = Field::ALL.map(Field::label).into();
        assert_eq!(labels.len(), Field::COUNT);
    }
}
