// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A UDP socket between two fixed ends, many datagrams with one system call (recvmmsg(2), sendmmsg(2)).
//!
//! The socket is connected: the kernel hands over what comes from the peer, and nothing else. Several sockets may have the
//! same end here and different peers (SO_REUSEPORT, which only sockets of one user may share). Nothing is fragmented on the
//! way: what is longer than the path takes is refused.

use std::ffi::c_int;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{iovec, mmsghdr};

use super::sockopt;

/// Most datagrams that are received or sent with one call.
const BATCH: usize = CALL as usize;
const CALL: u32 = 32;
/// Room for one of any length.
const LONGEST: usize = 64 << 10;
/// Most datagrams that are thrown away because they came before the socket knew its peer.
const STRANGERS: usize = 4096;
/// The place of the drops in what SO_MEMINFO tells (SK_MEMINFO_DROPS, of SK_MEMINFO_VARS).
const DROPS: usize = 8;

/// The socket.
#[derive(Debug)]
pub(crate) struct Datagrams {
    fd: OwnedFd,
    peer: SocketAddr,
    /// What the kernel's counter of drops showed last.
    drops: AtomicU64,
    /// How often the peer's machine said that nobody listens there, since this was last asked, as far as the kernel told: it
    /// does not when it sends some of many.
    refused: AtomicU64,
}

/// Datagrams that were received together.
#[derive(Debug)]
pub(crate) struct Batch {
    room: Box<[u8]>,
    lens: [usize; BATCH],
    count: usize,
}

impl Datagrams {
    /// Opens a socket from one end to the other.
    ///
    /// # Errors
    /// The end here is somebody else's or not of this machine (`AddrInUse`, `AddrNotAvailable`), or there is no way to the
    /// other (`NetworkUnreachable`).
    pub(crate) fn open(local: SocketAddr, peer: SocketAddr) -> io::Result<Self> {
        let is_v4 = local.is_ipv4();
        let fd = sockopt::open(if is_v4 { libc::AF_INET } else { libc::AF_INET6 }, libc::SOCK_DGRAM)?;
        let (level, discover, probe) = if is_v4 {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
        } else {
            sockopt::set(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1)?;
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
        };
        sockopt::set(&fd, level, discover, &probe)?;
        sockopt::set(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1)?;
        sockopt::enlarge(&fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)?;
        sockopt::enlarge(&fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)?;
        rustix::net::bind(&fd, &local)?;
        rustix::net::connect(&fd, &peer)?;
        let socket = Self { fd, peer, drops: AtomicU64::new(0), refused: AtomicU64::new(0) };
        socket.forget_strangers();
        Ok(socket)
    }

    /// Longest UDP payload that the path takes in one piece, as far as the kernel knows.
    ///
    /// # Errors
    /// There is no path now.
    pub(crate) fn path_payload(&self) -> io::Result<usize> {
        // The socket keeps the path that it has found; naming the same peer once more lets it look for it again.
        rustix::net::connect(&self.fd, &self.peer)?;
        let (level, option, headers) = if self.peer.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU, 20 + 8)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU, 40 + 8)
        };
        let mut mtu: c_int = 0;
        sockopt::get(&self.fd, level, option, &mut mtu)?;
        Ok(usize::try_from(mtu).unwrap_or(0).saturating_sub(headers))
    }

    /// How many datagrams found the socket's buffer full since this was last asked.
    pub(crate) fn take_kernel_drops(&self) -> io::Result<u64> {
        let mut info = [0u32; DROPS + 1];
        sockopt::get(&self.fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info)?;
        let [.., drops] = info;
        let now = u64::from(drops);
        Ok(now.saturating_sub(self.drops.swap(now, Ordering::Relaxed)))
    }

    /// How often the peer's machine said that nobody listens there since this was last asked.
    pub(crate) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Fills the batch with what waits, as far as it goes. Returns whether more may wait.
    pub(crate) fn receive(&self, batch: &mut Batch) -> bool {
        // SAFETY: a `mmsghdr` is plain data: all zeros are a value of it.
        let mut messages: [mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let mut pieces = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let rooms = batch.room.chunks_exact_mut(LONGEST);
        for ((message, piece), room) in messages.iter_mut().zip(&mut pieces).zip(rooms) {
            *piece = iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        batch.count = 0;
        loop {
            // SAFETY: as many messages as the array has; each names one piece, which is alive and lies in the batch's room,
            // and the batch is borrowed mutably. No names and no control data are asked for.
            let received = unsafe {
                let flags = libc::MSG_DONTWAIT;
                libc::recvmmsg(self.as_raw_fd(), messages.as_mut_ptr(), CALL, flags, std::ptr::null_mut())
            };
            let Ok(received) = usize::try_from(received) else {
                match self.last_error().kind() {
                    io::ErrorKind::WouldBlock => return false,
                    io::ErrorKind::Interrupted => continue,
                    // An error of an earlier datagram of ours is told once; the next call knows nothing of it. There may be
                    // as many as we send, so that it is not asked again for ever.
                    _ => return true,
                }
            };
            batch.count = received.min(BATCH);
            for (len, message) in batch.lens.iter_mut().zip(&messages).take(batch.count) {
                *len = message.msg_len as usize;
            }
            return received == BATCH;
        }
    }

    /// Sends what `datagrams` has, up to a batch. Returns how many the kernel has.
    ///
    /// # Errors
    /// It has none: what is wrong with the first.
    pub(crate) fn send<'a>(&self, datagrams: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        // SAFETY: a `mmsghdr` is plain data: all zeros are a value of it.
        let mut messages: [mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let mut pieces = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut count = 0;
        for ((message, piece), datagram) in messages.iter_mut().zip(&mut pieces).zip(datagrams) {
            *piece = iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
            message.msg_hdr.msg_iov = piece;
            message.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        // SAFETY: the first `count` messages name one piece each, which the caller lends for `'a`; the kernel reads them and
        // does not write.
        let sent = unsafe { libc::sendmmsg(self.as_raw_fd(), messages.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| self.last_error())
    }

    /// What went wrong with the last call.
    fn last_error(&self) -> io::Error {
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::ConnectionRefused {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        error
    }

    /// Throws away what came from anybody while the socket had no peer yet.
    fn forget_strangers(&self) {
        for _ in 0..STRANGERS {
            // SAFETY: no bytes are asked for, so that none are written; the datagram is gone.
            let read = unsafe { libc::recv(self.as_raw_fd(), std::ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
            if read < 0 {
                break;
            }
        }
    }
}

impl AsRawFd for Datagrams {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { room: vec![0; BATCH * LONGEST].into_boxed_slice(), lens: [0; BATCH], count: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Datagram `n`; nothing if there is none.
    pub(crate) fn get(&self, n: usize) -> &[u8] {
        let len = self.lens.get(n).filter(|_| n < self.count).copied().unwrap_or(0);
        self.room.get(n * LONGEST..n * LONGEST + len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> [Datagrams; 2] {
        // Two ports that are free: those of sockets that are closed again.
        let [a, b] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        let [a, b] = [a, b].map(|socket| socket.local_addr().expect("its address"));
        [(a, b), (b, a)].map(|(local, peer)| Datagrams::open(local, peer).expect("opened"))
    }

    #[test]
    fn more_than_a_batch_arrives_in_order() {
        let [a, b] = pair();
        let sent: Vec<Vec<u8>> = (0..80u8).map(|n| vec![n; usize::from(n) * 20]).collect();
        let mut at = 0;
        while at < sent.len() {
            at += a.send(sent[at..].iter().map(Vec::as_slice)).expect("sent");
        }
        let (mut batch, mut got) = (Batch::new(), Vec::new());
        while b.receive(&mut batch) || batch.len() > 0 {
            got.extend((0..batch.len()).map(|n| batch.get(n).to_vec()));
        }
        assert_eq!(got, sent);
        assert!(batch.get(0).is_empty());
    }

    #[test]
    fn only_the_peer_is_heard() {
        let [a, b] = pair();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = rustix::net::getsockname(&b.fd).expect("its address");
        let address = SocketAddr::try_from(address).expect("of IP");
        stranger.send_to(b"stranger", address).expect("sent");
        assert_eq!(a.send([&b"peer"[..]].into_iter()).expect("sent"), 1);
        let mut batch = Batch::new();
        assert!(!b.receive(&mut batch));
        assert_eq!((batch.len(), batch.get(0)), (1, &b"peer"[..]));
    }

    #[test]
    fn what_the_path_takes_is_known_and_more_is_refused() {
        let [a, b] = pair();
        let payload = a.path_payload().expect("known");
        // The MTU of a loopback interface, and the longest that IPv4 has.
        assert_eq!(payload, 65_535 - 28);
        let error = a.send([&vec![0; 65_508][..]].into_iter()).expect_err("too long");
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        // What nobody takes in time is counted.
        assert_eq!(b.take_kernel_drops().expect("known"), 0);
        let long = vec![0; 60_000];
        for _ in 0..1000 {
            a.send([&long[..]].into_iter()).expect("sent");
        }
        let lost = b.take_kernel_drops().expect("known");
        let (mut batch, mut got) = (Batch::new(), 0);
        while b.receive(&mut batch) || batch.len() > 0 {
            got += batch.len() as u64;
        }
        assert!(lost > 0 && got + lost == 1000, "{got} received, {lost} lost");
    }
}
