// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the kernel says about a network interface.
//!
//! Asked by `ioctl`, because that looks into the network namespace that the process is in; `/sys/class/net` shows the one
//! in which `/sys` was mounted.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd};

use libc::{c_ulong, ifreq};
use packet::MacAddr;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A network interface at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its number. A name that is given away again gets another one.
    pub(crate) index: i32,
    pub(crate) mac: MacAddr,
    /// Longest IP packet in bytes.
    pub(crate) mtu: u32,
    /// It is switched on and has a carrier.
    pub(crate) up: bool,
}

/// Asks about interfaces.
#[derive(Debug)]
pub(crate) struct InterfaceProbe(OwnedFd);

impl InterfaceProbe {
    pub(crate) fn new() -> io::Result<Self> {
        // Any socket will do; this one needs no address family that a kernel might lack.
        Ok(Self(socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?))
    }

    /// The interface of that name, `None` if there is none.
    ///
    /// # Errors
    /// It is not Ethernet, or the system cannot be asked.
    pub(crate) fn look(&self, name: &str) -> io::Result<Option<Interface>> {
        match self.ask_all(name) {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
            other => other.map(Some),
        }
    }

    /// How many queues an interface receives in; `None`: its driver does not say.
    pub(crate) fn receive_queues(&self, name: &str) -> Option<u32> {
        /// ETHTOOL_GCHANNELS and `struct ethtool_channels` (`linux/ethtool.h`).
        const GET_CHANNELS: u32 = 0x3c;
        #[repr(C)]
        #[derive(Default)]
        struct Channels {
            command: u32,
            max: [u32; 4],
            receive: u32,
            transmit: u32,
            other: u32,
            combined: u32,
        }
        let mut channels = Channels { command: GET_CHANNELS, ..Channels::default() };
        let mut question = request_for(name).ok()?;
        question.ifr_ifru.ifru_data = (&raw mut channels).cast();
        // SAFETY: the descriptor is open; the request reads a name and an address from the `ifreq`, and from the address the
        // command, for which it writes a `struct ethtool_channels` there. Both live during the call.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCETHTOOL, &raw mut question) };
        (result >= 0).then(|| channels.receive + channels.combined).filter(|queues| *queues > 0)
    }

    fn ask_all(&self, name: &str) -> io::Result<Interface> {
        let answer = self.ask(name, libc::SIOCGIFINDEX)?;
        // SAFETY: SIOCGIFINDEX succeeded, so that the kernel filled in this field.
        let index = unsafe { answer.ifr_ifru.ifru_ifindex };
        let answer = self.ask(name, libc::SIOCGIFFLAGS)?;
        // SAFETY: as above, of SIOCGIFFLAGS.
        let flags = i32::from(unsafe { answer.ifr_ifru.ifru_flags });
        let answer = self.ask(name, libc::SIOCGIFMTU)?;
        // SAFETY: as above, of SIOCGIFMTU.
        let mtu = unsafe { answer.ifr_ifru.ifru_mtu };
        let answer = self.ask(name, libc::SIOCGIFHWADDR)?;
        // SAFETY: as above, of SIOCGIFHWADDR.
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not an Ethernet interface"));
        }
        let [a, b, c, d, e, f, ..] = address.sa_data.map(i8::cast_unsigned);
        let wanted = libc::IFF_UP | libc::IFF_RUNNING;
        Ok(Interface {
            index,
            mac: MacAddr([a, b, c, d, e, f]),
            mtu: u32::try_from(mtu).unwrap_or(0),
            up: flags & wanted == wanted,
        })
    }

    fn ask(&self, name: &str, request: c_ulong) -> io::Result<ifreq> {
        let mut question = request_for(name)?;
        // SAFETY: the descriptor is open; these requests read a NUL-terminated name from the `ifreq` and write within it.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut question) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(question) }
    }
}

/// How many frames the kernel meant for an interface and dropped, as it counts itself; `None`: there is no such interface.
pub(super) fn transmit_drops(name: &str) -> Option<u64> {
    // Unlike /sys/class/net this is of the network namespace that the process is in.
    transmit_drops_in(&std::fs::read_to_string("/proc/thread-self/net/dev").ok()?, name)
}

/// The same, from the text of `/proc/net/dev`: a line for each interface, eight numbers of receiving, then packets, bytes,
/// errors and drops of sending.
fn transmit_drops_in(text: &str, name: &str) -> Option<u64> {
    const DROPS: usize = 8 + 3;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, numbers) = lines.find(|(found, _)| found.trim() == name)?;
    numbers.split_whitespace().nth(DROPS)?.parse().ok()
}

/// A request about the interface of that name, and nothing else in it.
///
/// # Errors
/// No interface can be called that (ENODEV).
pub(super) fn request_for(name: &str) -> io::Result<ifreq> {
    // SAFETY: an `ifreq` is plain data: all zeros are a value of it.
    let mut request: ifreq = unsafe { zeroed() };
    // One byte less than the array: the last one stays NUL.
    let room = libc::IFNAMSIZ - 1;
    if name.len() > room {
        return Err(Errno::NODEV.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    Ok(request)
}

/// The name in a request.
pub(super) fn name_of(request: &ifreq) -> String {
    let bytes: Vec<u8> =
        request.ifr_name.iter().map(|byte| byte.cast_unsigned()).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_and_what_is_not_ethernet_are_told_apart() {
        let probe = InterfaceProbe::new().expect("socket");
        assert_eq!(probe.look("no-such-iface").expect("an answer"), None);
        assert_eq!(probe.look("longer-than-any-name-can-be").expect("an answer"), None);
        assert_eq!(probe.look("lo").expect_err("loopback").kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn drops_are_found_in_the_column_of_sending() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n    \
                    lo:  840       9    0    1    0     0          0         0      840       9    0    2    0     0\n  \
                    tap0:1000 10 11 12 13 14 15 16 2000 20 21 22 23 24 25 26\n";
        assert_eq!(["lo", "tap0", "tap"].map(|name| transmit_drops_in(text, name)), [Some(2), Some(22), None]);
        assert!(transmit_drops("lo").is_some());
    }
}
