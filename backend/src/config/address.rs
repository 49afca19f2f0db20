// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What an uplink is called by the kernel and on its link, and what tells overlays apart.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// The name of a network interface (`IFNAMSIZ`: 16 bytes with the closing NUL).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

/// A text that cannot be an [`InterfaceName`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{found}\" is no name of an interface, which has 1 to 15 bytes, no space and no '/' or ':'")]
pub struct BadInterfaceName {
    found: String,
}

impl InterfaceName {
    /// Longest name in bytes.
    pub const MAX_LEN: usize = 15;

    /// Checks a name's form, as the kernel does; whether there is such an interface is not looked at.
    ///
    /// # Errors
    /// If no interface can be called that.
    ///
    /// ```
    /// use backend::config::InterfaceName;
    /// assert!(InterfaceName::new("eth0.100").is_ok());
    /// assert!(InterfaceName::new("../eth0").is_err());
    /// ```
    pub fn new(text: impl Into<String>) -> Result<Self, BadInterfaceName> {
        let text = text.into();
        let forbidden = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '\0');
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        if fits && !matches!(text.as_str(), "." | "..") && !text.contains(forbidden) {
            Ok(Self(text))
        } else {
            Err(BadInterfaceName { found: text })
        }
    }
}

impl Deref for InterfaceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An own address on a link and the length of the prefix that the link has: `192.0.2.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    address: IpAddr,
    prefix: u8,
}

/// A text that cannot be an [`InterfaceAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("\"{found}\" is not {what}, such as \"192.0.2.1/24\"")]
pub struct BadInterfaceAddress {
    found: String,
    what: &'static str,
}

impl InterfaceAddress {
    /// The address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Length of the prefix in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the prefix covers an address.
    ///
    /// ```
    /// use backend::config::InterfaceAddress;
    /// let own: InterfaceAddress = "192.0.2.1/24".parse().unwrap();
    /// assert!(own.covers("192.0.2.255".parse().unwrap()) && !own.covers("192.0.3.1".parse().unwrap()));
    /// ```
    pub fn covers(self, other: IpAddr) -> bool {
        // A shift by all bits, of prefix 0, leaves nothing.
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differs = own.to_bits() ^ other.to_bits();
                differs.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl FromStr for InterfaceAddress {
    type Err = BadInterfaceAddress;

    fn from_str(text: &str) -> Result<Self, BadInterfaceAddress> {
        let bad = |what| BadInterfaceAddress { found: text.to_owned(), what };
        let form = "an address with the length of its prefix";
        let (address, prefix) = text.split_once('/').ok_or_else(|| bad(form))?;
        let address: IpAddr = address.parse().map_err(|_| bad(form))?;
        // Only digits: "+24" is a number to Rust.
        let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix: u8 = prefix.parse().ok().filter(|_| digits).ok_or_else(|| bad(form))?;
        if prefix > if address.is_ipv4() { 32 } else { 128 } {
            return Err(bad("an address whose prefix is at most as long as itself"));
        }
        if !is_host(address) {
            return Err(bad("the address of one station"));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Serialize for InterfaceAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether an address can be that of one station on a link.
pub(super) fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(is_broadcast || address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// A virtual network identifier: 24 bits (RFC 7348, 7637, 8926).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vni(u32);

impl Vni {
    /// The highest one.
    pub const MAX: u32 = (1 << 24) - 1;

    /// That number, if it has at most 24 bits.
    pub fn new(number: u32) -> Option<Self> {
        (number <= Self::MAX).then_some(Self(number))
    }

    /// As a number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        for good in ["a", "eth0", "enp0s31f6", "veth-0123456789"] {
            assert_eq!(InterfaceName::new(good).expect(good).to_string(), good);
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-bytes-no", "a\0"] {
            InterfaceName::new(bad).expect_err(bad);
        }
    }

    #[test]
    fn addresses_go_round_and_what_is_none_is_refused() {
        for good in ["192.0.2.1/24", "10.0.0.1/0", "192.0.2.1/32", "2001:db8::1/64", "fe80::1/128"] {
            assert_eq!(good.parse::<InterfaceAddress>().expect(good).to_string(), good);
        }
        for bad in ["192.0.2.1", "192.0.2.1/33", "::1/64", "192.0.2.1/+1", "192.0.2.1/", "/24", "224.0.0.1/4", "::/0"] {
            bad.parse::<InterfaceAddress>().expect_err(bad);
        }
    }

    #[test]
    fn a_prefix_covers_what_begins_like_it() {
        let covers =
            |own: &str, other: &str| own.parse::<InterfaceAddress>().expect(own).covers(other.parse().expect(other));
        assert!(covers("10.0.0.1/0", "203.0.113.1") && !covers("10.0.0.1/0", "::1"));
        assert!(covers("10.1.0.1/15", "10.0.255.255") && !covers("10.1.0.1/15", "10.2.0.0"));
        assert!(covers("fd00::1/64", "fd00::ffff:ffff") && !covers("fd00::1/64", "fd00:0:0:1::1"));
        assert!(covers("fd00::1/128", "fd00::1") && !covers("fd00::1/128", "fd00::2"));
    }
}
