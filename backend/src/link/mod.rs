// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The link layer of an uplink, of any kind: opened and watched by the ports thread, used by one worker.
//!
//! A worker needs little of it: hold a bounded number of frames, look at each, let go; put frames behind each other and
//! send them together; a descriptor to sleep on. The kinds are an enumeration, so that nothing on a packet's way is called
//! through a table.

#[cfg(test)]
pub(crate) mod memory;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use packet::{EthernetHeader, MacAddr};
use virtqueue::NetHeader;

pub(crate) use self::udp::PEER;
use self::udp::{UdpRx, UdpTx};
use crate::config::{self, AfXdp, LinkConfig};
use crate::sys::{
    Datagrams, Flushed, Interface, InterfaceProbe, MAX_MTU, PacketSocket, Received, RxRing, Tap, TapRx, TapTx, TxRing,
    XdpMode, XdpRequest, XdpRx, XdpSocket, XdpTx,
};

/// The kernel's part of a link.
#[derive(Debug)]
pub(crate) enum Link {
    Packet(Arc<PacketSocket>),
    Xdp(Arc<XdpSocket>),
    Tap(Arc<Tap>),
    Udp(Arc<Datagrams>),
}

/// A link that was opened, with both of its ends.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) link: Link,
    pub(crate) rx: LinkRx,
    pub(crate) tx: LinkTx,
    /// What there was to be opened.
    pub(crate) interface: Interface,
    /// The MAC address of the node's own addresses there.
    pub(crate) mac: MacAddr,
    /// Longest IP packet that can be sent.
    pub(crate) mtu: usize,
}

impl Link {
    /// Opens a link; `Ok(None)`: the interface is not there. `kept`: a link that was left by [`Link::keep`].
    ///
    /// # Errors
    /// What is there cannot be opened, or cannot be made.
    pub(crate) fn open(config: &LinkConfig, probe: &InterfaceProbe, kept: Option<Self>) -> io::Result<Option<Opened>> {
        match config {
            LinkConfig::AfPacket { interface } => {
                let Some(found) = probe.look(interface)? else { return Ok(None) };
                let socket = Arc::new(PacketSocket::open(found.index, found.mtu)?);
                let (rx, tx) = (RxRing::new(Arc::clone(&socket)), TxRing::new(Arc::clone(&socket)));
                let mtu = socket.max_mtu().min(found.mtu as usize);
                Ok(Some(Opened {
                    link: Self::Packet(socket),
                    rx: LinkRx::Packet(rx),
                    tx: LinkTx::Packet(tx),
                    interface: found,
                    mac: found.mac,
                    mtu,
                }))
            }
            LinkConfig::Tap { interface } => {
                let tap = match kept {
                    Some(Self::Tap(tap)) => tap,
                    _ => Arc::new(Tap::open(interface)?),
                };
                let Some(found) = tap.look(probe, None)? else { return Ok(None) };
                let (rx, tx) = (TapRx::new(Arc::clone(&tap)), TapTx::new(Arc::clone(&tap)));
                Ok(Some(Opened {
                    link: Self::Tap(tap),
                    rx: LinkRx::Tap(rx),
                    tx: LinkTx::Tap(tx),
                    interface: found,
                    mac: other_end_of(found.mac),
                    mtu: usize::from(MAX_MTU).min(found.mtu as usize),
                }))
            }
            LinkConfig::AfXdp(wanted) => {
                let Some(found) = probe.look(&wanted.interface)? else { return Ok(None) };
                check_queues(wanted, probe)?;
                let socket = Arc::new(XdpSocket::open(request(wanted, found))?);
                let (rx, tx) = (XdpRx::new(Arc::clone(&socket)), XdpTx::new(Arc::clone(&socket)));
                let mtu = socket.max_mtu().min(found.mtu as usize);
                Ok(Some(Opened {
                    link: Self::Xdp(socket),
                    rx: LinkRx::Xdp(rx),
                    tx: LinkTx::Xdp(tx),
                    interface: found,
                    mac: found.mac,
                    mtu,
                }))
            }
            LinkConfig::Udp { local, peer } => {
                let socket = match kept {
                    Some(Self::Udp(socket)) => socket,
                    _ => Arc::new(Datagrams::open(*local, *peer)?),
                };
                let interface = path_of(&socket, *local, *peer)?;
                let (rx, tx) = (UdpRx::new(Arc::clone(&socket)), UdpTx::new(Arc::clone(&socket)));
                Ok(Some(Opened {
                    link: Self::Udp(socket),
                    rx: LinkRx::Udp(rx),
                    tx: LinkTx::Udp(tx),
                    interface,
                    mac: interface.mac,
                    mtu: interface.mtu as usize,
                }))
            }
        }
    }

    /// Looks at the interface again; `Ok(None)`: it is gone.
    pub(crate) fn look(
        &self,
        config: &LinkConfig,
        probe: &InterfaceProbe,
        last: Interface,
    ) -> io::Result<Option<Interface>> {
        match self {
            Self::Packet(_) | Self::Xdp(_) => config.interface().map_or(Ok(None), |interface| probe.look(interface)),
            Self::Tap(tap) => tap.look(probe, Some(last)),
            Self::Udp(socket) => match config {
                // Without a way there it is as good as a link without a carrier.
                LinkConfig::Udp { local, peer } => {
                    Ok(Some(path_of(socket, *local, *peer).unwrap_or(Interface { up: false, ..last })))
                }
                _ => Ok(None),
            },
        }
    }

    /// What is to be kept when the link is opened anew because the interface, or the path, has changed: a tap device that
    /// is not persistent goes with its file, and with all that was configured for it; datagrams wait in their socket.
    pub(crate) fn keep(self) -> Option<Self> {
        matches!(self, Self::Tap(_) | Self::Udp(_)).then_some(self)
    }

    /// Whether frames may be sent there whose checksum is not finished.
    pub(crate) fn takes_unfinished(&self) -> bool {
        match self {
            Self::Packet(_) => true,
            Self::Xdp(_) | Self::Udp(_) => false,
            // The stack at the other end would take them, but not all who listen there look at what is said about them.
            Self::Tap(_) => false,
        }
    }

    /// How an AF_XDP socket exchanges frames; `None`: it is none.
    pub(crate) fn xdp_mode(&self) -> Option<XdpMode> {
        match self {
            Self::Xdp(socket) => Some(socket.mode()),
            Self::Packet(_) | Self::Tap(_) | Self::Udp(_) => None,
        }
    }

    /// How many frames the kernel had no room for since this was last asked.
    pub(crate) fn take_kernel_drops(&self) -> u64 {
        match self {
            Self::Packet(socket) => socket.take_kernel_drops().unwrap_or(0),
            Self::Xdp(socket) => socket.take_kernel_drops().unwrap_or(0),
            Self::Tap(tap) => tap.take_kernel_drops(),
            Self::Udp(socket) => socket.take_kernel_drops().unwrap_or(0),
        }
    }
}

/// The receiving end. Frames are held until [`LinkRx::release`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few, and none moves while packets do")]
pub(crate) enum LinkRx {
    Packet(RxRing),
    Xdp(XdpRx),
    Tap(TapRx),
    Udp(UdpRx),
    #[cfg(test)]
    Memory(memory::MemoryRx),
}

impl LinkRx {
    /// Whether a frame may wait that is not held yet; one that comes later is told by the descriptor.
    #[inline]
    pub(crate) fn has_frames(&self) -> bool {
        match self {
            Self::Packet(ring) => ring.has_frames(),
            Self::Xdp(ring) => ring.has_frames(),
            Self::Tap(tap) => tap.has_frames(),
            Self::Udp(udp) => udp.has_frames(),
            #[cfg(test)]
            Self::Memory(memory) => memory.has_frames(),
        }
    }

    /// Holds as many frames as there are, up to a burst. Returns how many are held.
    #[inline]
    pub(crate) fn harvest(&mut self) -> usize {
        match self {
            Self::Packet(ring) => ring.harvest(),
            Self::Xdp(ring) => ring.harvest(),
            Self::Tap(tap) => tap.harvest(),
            Self::Udp(udp) => udp.harvest(),
            #[cfg(test)]
            Self::Memory(memory) => memory.harvest(),
        }
    }

    /// Held frame `i`; an empty one if there is none.
    #[inline]
    pub(crate) fn frame(&self, i: usize) -> Received<'_> {
        match self {
            Self::Packet(ring) => ring.frame(i),
            Self::Xdp(ring) => ring.frame(i),
            Self::Tap(tap) => tap.frame(i),
            Self::Udp(udp) => udp.frame(i),
            #[cfg(test)]
            Self::Memory(memory) => memory.frame(i),
        }
    }

    /// Lets go of all held frames.
    #[inline]
    pub(crate) fn release(&mut self) {
        match self {
            Self::Packet(ring) => ring.release(),
            Self::Xdp(ring) => ring.release(),
            Self::Tap(tap) => tap.release(),
            Self::Udp(udp) => udp.release(),
            #[cfg(test)]
            Self::Memory(memory) => memory.release(),
        }
    }
}

impl LinkRx {
    /// Shows frames that negotiate about aggregates, which are otherwise of no use.
    pub(crate) fn show_control(&mut self) {
        if let Self::Udp(udp) = self {
            udp.show_control();
        }
    }

    /// What was wrong with what came since this was last asked, by cause.
    pub(crate) fn take_faults(&mut self) -> BTreeMap<&'static str, u64> {
        match self {
            Self::Packet(_) | Self::Xdp(_) | Self::Tap(_) => BTreeMap::new(),
            Self::Udp(udp) => udp.take_faults(),
            #[cfg(test)]
            Self::Memory(_) => BTreeMap::new(),
        }
    }
}

/// What becomes readable when a frame comes.
impl AsRawFd for LinkRx {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Packet(ring) => ring.socket().as_raw_fd(),
            Self::Xdp(ring) => ring.as_raw_fd(),
            Self::Tap(tap) => tap.as_raw_fd(),
            Self::Udp(udp) => udp.as_raw_fd(),
            #[cfg(test)]
            Self::Memory(memory) => memory.as_raw_fd(),
        }
    }
}

/// The sending end. Frames wait until [`LinkTx::flush`].
#[derive(Debug)]
pub(crate) enum LinkTx {
    Packet(TxRing),
    Xdp(XdpTx),
    Tap(TapTx),
    Udp(UdpTx),
    #[cfg(test)]
    Memory(memory::MemoryTx),
}

impl LinkTx {
    /// Whether frames wait for [`LinkTx::flush`].
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        match self {
            Self::Packet(ring) => ring.has_unsent(),
            Self::Xdp(ring) => ring.has_unsent(),
            Self::Tap(tap) => tap.has_unsent(),
            Self::Udp(udp) => udp.has_unsent(),
            #[cfg(test)]
            Self::Memory(memory) => memory.has_unsent(),
        }
    }

    /// Whether a frame can be added now.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Packet(ring) => ring.has_room(),
            Self::Xdp(ring) => ring.has_room(),
            Self::Tap(tap) => tap.has_room(),
            Self::Udp(udp) => udp.has_room(),
            #[cfg(test)]
            Self::Memory(_) => true,
        }
    }

    /// Adds a frame of `len` bytes, which `fill` writes entirely, behind those that wait. `false`: there is no room for it.
    #[inline]
    pub(crate) fn push(&mut self, len: usize, header: NetHeader, fill: impl FnOnce(&mut [u8])) -> bool {
        match self {
            Self::Packet(ring) => ring.push(len, header, fill),
            // What its header says is finished: `Link::takes_unfinished`.
            Self::Xdp(ring) => ring.push(len, fill),
            Self::Tap(tap) => tap.push(len, header, fill),
            Self::Udp(udp) => udp.push(len, fill),
            #[cfg(test)]
            Self::Memory(memory) => memory.push(len, header, fill),
        }
    }

    /// Adds an aggregate, or a frame that negotiates about them, with the Ethernet header that it has on a link where there is one.
    pub(crate) fn push_aggregate(&mut self, frame: &[u8]) -> bool {
        match self {
            Self::Udp(udp) => udp.push_frame(frame.get(EthernetHeader::LEN..).unwrap_or_default()),
            others => others.push(frame.len(), NetHeader::default(), |room| room.copy_from_slice(frame)),
        }
    }

    /// Bytes of an aggregate on a link that takes IP packets of `mtu` bytes.
    pub(crate) fn longest_aggregate(&self, mtu: usize) -> usize {
        match self {
            Self::Packet(_) | Self::Xdp(_) | Self::Tap(_) => mtu,
            Self::Udp(_) => udp::payload_of(mtu),
            #[cfg(test)]
            Self::Memory(_) => mtu,
        }
    }

    /// Says as what the node's frames are known, where it puts some together for the link's own purposes.
    pub(crate) fn set_stage(&mut self, stage: u8) {
        if let Self::Udp(udp) = self {
            udp.set_stage(stage);
        }
    }

    /// Whether there is one other end, which gets whatever is sent.
    pub(crate) fn has_one_peer(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    /// Hands what waits to the kernel.
    pub(crate) fn flush(&mut self) -> Flushed {
        match self {
            Self::Packet(ring) => ring.flush(),
            Self::Xdp(ring) => ring.flush(),
            Self::Tap(tap) => tap.flush(),
            Self::Udp(udp) => udp.flush(),
            #[cfg(test)]
            Self::Memory(memory) => memory.flush(),
        }
    }
}

/// What is asked for on an interface that was found.
fn request(wanted: &AfXdp, found: Interface) -> XdpRequest {
    XdpRequest {
        index: found.index,
        queue: wanted.queue,
        mtu: found.mtu,
        native: wanted.mode != config::XdpMode::Generic,
        generic: wanted.mode != config::XdpMode::Native,
        zero_copy: wanted.zero_copy,
    }
}

/// Whether the interface has the queue; frames that arrive at others do not come here, which is worth a line.
fn check_queues(AfXdp { interface, queue, .. }: &AfXdp, probe: &InterfaceProbe) -> io::Result<()> {
    // Not all drivers say how many they have.
    let Some(queues) = probe.receive_queues(interface) else { return Ok(()) };
    if u32::from(*queue) >= queues {
        let text = format!("there is no queue {queue}: it has {queues}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    if queues > 1 {
        log::warn!(
            "interface {interface} has {queues} receive queues, and what arrives at others than {queue} goes to the kernel: \
             ethtool -L {interface} combined 1"
        );
    }
    Ok(())
}

/// A path of datagrams, as if it were an interface.
fn path_of(socket: &Datagrams, local: SocketAddr, peer: SocketAddr) -> io::Result<Interface> {
    let mtu = udp::mtu_of(socket.path_payload()?);
    // Both ends together: many paths may begin at the same end, and the other direction is another's.
    let mac = made_from(&[b"udp", local.to_string().as_bytes(), b">", peer.to_string().as_bytes()]);
    Ok(Interface { index: 0, mac, mtu: u32::try_from(mtu).unwrap_or(u32::MAX), up: true })
}

/// The address of who is at the other end of a tap device whose own end has this one: made from it, so that it is the same
/// at every start, and locally administered.
fn other_end_of(own: MacAddr) -> MacAddr {
    made_from(&[b"tap", &own.0])
}

/// A locally administered address that follows from these bytes (FNV-1a).
fn made_from(parts: &[&[u8]]) -> MacAddr {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [a, b, c, d, e, f, ..] = (hash ^ hash >> 29).to_be_bytes();
    MacAddr([a & !1 | 2, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_addresses_are_stations_of_nobody_and_differ() {
        let mut seen = std::collections::HashSet::new();
        for n in 0..=255u8 {
            let own = MacAddr([2, 0, 0, 0, n, 1]);
            let other = other_end_of(own);
            assert!(other.is_unicast() && other.0[0] & 2 != 0 && other != own);
            assert!(seen.insert(other), "{other} twice");
        }
    }
}
