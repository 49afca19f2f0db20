// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Exchanges data with peers that run the same program, over TCP and UDP, with all of them at once and both ways. It runs on this
//! machine and in guests, so it needs nothing but the C library.
//!
//! `courier DIRECTORY IP BYTES DATAGRAMS PEER...`: listens at IP, sends each PEER so many bytes over TCP and so many datagrams, and expects
//! the same from each. What was sent is in `DIRECTORY/tcp-to-PEER` and `udp-to-PEER`, what arrived in `tcp-from-PEER` and `udp-from-PEER`.
//! When all has arrived and all that was sent is acknowledged, it says what it saw of each peer's datagrams, and `done`; then it goes on
//! acknowledging until it is ended, because the last acknowledgement may have been lost.
//!
//! Datagrams are numbered, and acknowledged by the number that is expected next; what was lost is sent again from there on. Each has
//! a serial number as well, which grows with everything that is sent, repetitions included: if that of a datagram is not above those that came before,
//! the network has changed the order, or has doubled something.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TCP: u16 = 5001;
const UDP: u16 = 5002;
/// Datagrams that may be under way to a peer.
const WINDOW: u32 = 64;
/// Every so many datagrams are acknowledged, besides the last and those that are not in turn.
const ACKNOWLEDGED: u32 = 16;
/// When an acknowledgement does not come for so long, everything since the last is sent again.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between attempts to reach a peer that does not listen yet.
const RETRY: Duration = Duration::from_millis(20);
/// Number, serial number, and how many there will be.
const HEADER: usize = 12;

struct Job {
    directory: PathBuf,
    own: IpAddr,
    bytes: usize,
    datagrams: u32,
    peers: Vec<IpAddr>,
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().with_context(|| format!("no {what}"));
    let directory = PathBuf::from(next("directory")?);
    let (own, bytes) = (next("address")?.parse()?, next("number of bytes")?.parse()?);
    let datagrams = next("number of datagrams")?.parse()?;
    let peers = args.map(|peer| Ok(peer.parse()?)).collect::<Result<Vec<IpAddr>>>()?;
    let job = Arc::new(Job { directory, own, bytes, datagrams, peers });
    fs::create_dir_all(&job.directory)?;
    let (listener, socket) = (TcpListener::bind((own, TCP))?, UdpSocket::bind((own, UDP))?);
    let (done, ends) = channel();
    for &peer in &job.peers {
        Job::begin(&job, &done, move |job| job.send_stream(peer).with_context(|| format!("TCP to {peer}")));
        Job::begin(&job, &done, move |job| job.send_datagrams(peer).with_context(|| format!("UDP to {peer}")));
    }
    Job::begin(&job, &done, move |job| job.take_streams(&listener));
    let arrived = done.clone();
    Job::begin(&job, &done, move |job| job.take_datagrams(&socket, &arrived));
    // To each peer both ways, and from all of them both ways.
    for _ in 0..2 * job.peers.len() + 2 {
        let line = ends.recv()??;
        if !line.is_empty() {
            println!("{line}");
        }
    }
    println!("done");
    loop {
        thread::park();
    }
}

impl Job {
    /// Starts a part of the job in a thread, which tells how it ended.
    fn begin(
        job: &Arc<Self>,
        done: &Sender<Result<String>>,
        part: impl FnOnce(&Self) -> Result<String> + Send + 'static,
    ) {
        let (job, done) = (Arc::clone(job), done.clone());
        thread::spawn(move || done.send(part(&job)));
    }

    fn send_stream(&self, peer: IpAddr) -> Result<String> {
        let data = noise(self.own, peer, self.bytes);
        fs::write(self.file("tcp-to", peer), &data)?;
        let mut stream = loop {
            match TcpStream::connect((peer, TCP)) {
                Ok(stream) => break stream,
                Err(error) if is_early(error.kind()) => thread::sleep(RETRY),
                Err(error) => return Err(error.into()),
            }
        };
        stream.write_all(&data)?;
        Ok(String::new())
    }

    /// Takes one connection of each peer to its end.
    fn take_streams(&self, listener: &TcpListener) -> Result<String> {
        thread::scope(|scope| {
            let mut takers = Vec::new();
            for _ in &self.peers {
                let (mut stream, from) = listener.accept()?;
                takers.push(scope.spawn(move || -> Result<()> {
                    let mut file = fs::File::create_new(self.file("tcp-from", from.ip()))?;
                    io::copy(&mut stream, &mut file).with_context(|| format!("TCP from {from}"))?;
                    Ok(())
                }));
            }
            takers.into_iter().try_for_each(|taker| taker.join().ok().context("a thread ended badly")?)
        })?;
        Ok(String::new())
    }

    fn send_datagrams(&self, peer: IpAddr) -> Result<String> {
        let data: Vec<Vec<u8>> = bodies(self.own, peer, self.datagrams);
        fs::write(self.file("udp-to", peer), data.concat())?;
        let socket = UdpSocket::bind((self.own, 0))?;
        socket.connect((peer, UDP))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let (mut acknowledged, mut next, mut serial, mut again) = (0, 0, 0_u32, 0_u32);
        let mut answer = [0; 4];
        while acknowledged < self.datagrams {
            while next < self.datagrams.min(acknowledged + WINDOW) {
                let header = [next, serial, self.datagrams].map(u32::to_be_bytes).concat();
                let body = data.get(next as usize).context("a datagram")?;
                match socket.send(&[&header[..], body].concat()) {
                    Ok(_) => (next, serial) = (next + 1, serial + 1),
                    Err(error) if is_early(error.kind()) => thread::sleep(RETRY),
                    Err(error) => return Err(error.into()),
                }
            }
            match socket.recv(&mut answer) {
                Ok(len) => {
                    ensure!(len == answer.len(), "an acknowledgement of {len} bytes");
                    acknowledged = acknowledged.max(u32::from_be_bytes(answer));
                    ensure!(acknowledged <= next, "{acknowledged} acknowledged of {next}");
                }
                Err(error) if is_early(error.kind()) || error.kind() == ErrorKind::WouldBlock => {
                    again += next - acknowledged;
                    next = acknowledged;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(format!("udp-to {peer} sent {serial} again {again}"))
    }

    /// Takes and acknowledges datagrams for ever; reports once, when there is nothing more to come.
    fn take_datagrams(&self, socket: &UdpSocket, done: &Sender<Result<String>>) -> Result<String> {
        let mut flows: BTreeMap<IpAddr, Flow> = self.peers.iter().map(|peer| (*peer, Flow::default())).collect();
        let mut buffer = [0; 2048];
        let mut reported = false;
        loop {
            let (len, from) = socket.recv_from(&mut buffer)?;
            let flow = flows.get_mut(&from.ip()).with_context(|| format!("a stranger, {from}"))?;
            let datagram = buffer.get(..len).context("a datagram")?;
            if let Some(expected) = flow.take(datagram).with_context(|| format!("UDP from {from}"))? {
                acknowledge(socket, from, expected)?;
            }
            if !reported && flows.values().all(|flow| flow.data.len() == self.datagrams as usize) {
                reported = true;
                for (peer, flow) in &flows {
                    fs::write(self.file("udp-from", *peer), flow.data.concat())?;
                }
                let lines = flows.iter().map(|(peer, flow)| {
                    let Flow { arrived, disordered, serial, .. } = flow;
                    format!("udp-from {peer} arrived {arrived} disordered {disordered} serial {serial}")
                });
                done.send(Ok(lines.collect::<Vec<_>>().join("\n")))?;
            }
        }
    }

    fn file(&self, what: &str, peer: IpAddr) -> PathBuf {
        Path::new(&self.directory).join(format!("{what}-{peer}"))
    }
}

/// What came from a peer.
#[derive(Default)]
struct Flow {
    /// The bodies, in turn.
    data: Vec<Vec<u8>>,
    arrived: u64,
    /// Those whose serial number was not above all before.
    disordered: u64,
    /// The least that the next may have.
    serial: u32,
}

impl Flow {
    /// Takes a datagram. The number of the next, if it is to be told.
    fn take(&mut self, datagram: &[u8]) -> Result<Option<u32>> {
        let (header, body) = datagram.split_at_checked(HEADER).context("a short datagram")?;
        let field = |at: usize| -> Result<u32> { Ok(u32::from_be_bytes(header[at..at + 4].try_into()?)) };
        let (number, serial, all) = (field(0)?, field(4)?, field(8)?);
        self.arrived += 1;
        if serial < self.serial {
            self.disordered += 1;
        } else {
            self.serial = serial + 1;
        }
        let in_turn = number as usize == self.data.len();
        if in_turn {
            self.data.push(body.to_vec());
        }
        let expected = u32::try_from(self.data.len())?;
        Ok((!in_turn || expected == all || expected.is_multiple_of(ACKNOWLEDGED)).then_some(expected))
    }
}

fn acknowledge(socket: &UdpSocket, to: SocketAddr, expected: u32) -> Result<()> {
    match socket.send_to(&expected.to_be_bytes(), to) {
        Ok(_) => Ok(()),
        Err(error) if is_early(error.kind()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a peer, or the way to it, may merely not be there yet.
fn is_early(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(kind, ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)
}

/// What datagrams to a peer carry: many small ones, some up to what an MTU of 1500 takes.
fn bodies(own: IpAddr, peer: IpAddr, count: u32) -> Vec<Vec<u8>> {
    let len = |number: u32| {
        let mixed = number.wrapping_mul(0x9e37_79b9) >> 16;
        (if mixed.is_multiple_of(8) { 400 + mixed % 1000 } else { 8 + mixed % 120 }) as usize
    };
    let mut data = noise(own, peer, (0..count).map(len).sum());
    data.reverse();
    (0..count).map(|number| data.split_off(data.len() - len(number))).collect()
}

/// Bytes that are different for each pair of stations (xorshift).
fn noise(own: IpAddr, peer: IpAddr, len: usize) -> Vec<u8> {
    // FNV-1a.
    let name = format!("{own} {peer}");
    let mut state = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut words = Vec::with_capacity(len + 8);
    while words.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words.extend_from_slice(&state.to_le_bytes());
    }
    words.truncate(len);
    words
}
