// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Programs in C, built with gcc against the library as it is shipped. At a real node: the example between two links,
//! with aggregation and without, also while the node is started again; and calls that must be refused. Across wires that
//! know nothing of aggregation: what travels with packets.

mod node;
#[path = "../../../tests/wires/mod.rs"]
mod wires;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use cnf::{Aggregation, Burst, Checksum, Event, LinkConfig, Meta, Offload, Packet};
use node::Wired;
use tempfile::TempDir;
use wires::{End, Wires, until};

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").canonicalize().unwrap()
}

/// Where the library is; it is brought up to date first (once): for this test cargo builds it somewhere else.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        // <target>/<profile>/deps/<test>
        let (profile, target) = (exe.ancestors().nth(2).unwrap(), exe.ancestors().nth(3).unwrap());
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(root()).args(["build", "--quiet", "--package", "shunt-cnf-c", "--target-dir"]).arg(target);
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        profile.to_owned()
    })
}

/// Builds a program, against the shared library or the static one.
fn build(source: &str, dir: &TempDir, shared: bool) -> PathBuf {
    let program = dir.path().join(Path::new(source).file_stem().unwrap()).with_extension(shared.to_string());
    let library = library();
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-D_DEFAULT_SOURCE", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined"]);
    gcc.arg("-I").arg(root().join("cnf/include")).arg(root().join(source)).arg("-o").arg(&program);
    if shared {
        let mut rpath = OsString::from("-Wl,-rpath,");
        rpath.push(library);
        gcc.arg("-L").arg(library).arg("-lshunt_cnf").arg(rpath);
    } else {
        gcc.arg(library.join("libshunt_cnf.a")).args(["-lpthread", "-ldl", "-lm"]);
    }
    assert!(gcc.status().expect("gcc").success());
    program
}

/// A program that runs. It is killed when it is dropped.
struct Running {
    child: Child,
    /// What it says of its links.
    events: PathBuf,
}

impl Running {
    fn start(program: &Path, args: &[&Path], options: &[&str]) -> Self {
        let events = program.with_extension("events");
        let mut command = Command::new(program);
        command.args(options).args(args).stdout(Stdio::piped()).stderr(File::create(&events).unwrap());
        Self { child: command.spawn().unwrap(), events }
    }

    /// How often it said that it may send aggregates on a link.
    fn agreements(&self, link: &Path) -> usize {
        let told = format!("{}: aggregating", link.display());
        std::fs::read_to_string(&self.events).unwrap().lines().filter(|line| line.starts_with(&told)).count()
    }

    /// Asks it to end; it must end well. Says what it printed.
    fn end(mut self) -> String {
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text} {:?}", std::fs::read_to_string(&self.events));
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes(number: u16) -> Vec<u8> {
    let len = 14 + usize::from(number) * 13 % 1400;
    (0..len).map(|at| (at * 5).to_le_bytes()[0] ^ number.to_be_bytes()[at % 2]).collect()
}

/// Sends packets from one end to the other through the program, in order, byte for byte.
fn exchange(from: &mut End, to: &mut End, count: u16, metas: Option<fn(u16) -> Meta>) {
    let (mut sent, mut received, mut burst) = (0, 0, Burst::new());
    until("all packets", || {
        let meta = metas.map_or_else(Meta::default, |meta| meta(sent));
        while sent < count && sent - received < 100 && from.queues[0].send(Packet { bytes: &bytes(sent), meta }) {
            sent += 1;
            if metas.is_some() {
                break;
            }
        }
        from.tend();
        to.tend();
        to.queues[0].receive(&mut burst);
        for packet in burst.iter() {
            assert_eq!(packet.bytes, bytes(received), "packet {received} of {count}");
            if let Some(meta) = metas {
                // A packet alone in its burst goes plain, unless something travels with it.
                assert_eq!(packet.meta, meta(received));
            }
            received += 1;
        }
        received == count
    });
}

fn settle(ends: &mut [&mut End], aggregate: bool, ups: usize) {
    let mut burst = Burst::new();
    until("all are there", || {
        ends.iter_mut().all(|end| {
            end.tend();
            end.queues[0].receive(&mut burst);
            let told = |wanted: fn(&Event) -> bool| end.told.iter().filter(|event| wanted(event)).count();
            told(|event| matches!(event, Event::Up)) == ups && (!aggregate || end.is_aggregating())
        })
    });
}

/// Tends links until something is so.
fn until_tended(ends: &mut [&mut End], done: impl Fn() -> bool) {
    let mut burst = Burst::new();
    until("the program is ready", || {
        for end in &mut *ends {
            end.tend();
            end.queues[0].receive(&mut burst);
        }
        done()
    });
}

#[test]
fn the_example_forwards() {
    for (aggregate, shared, options) in
        [(false, true, &[][..]), (true, true, &["-a"][..]), (true, false, &["-a", "-s"][..])]
    {
        let dir = tempfile::tempdir().unwrap();
        let program = build("cnf/examples/c/l2fwd.c", &dir, shared);
        let mut wires = Wired::start(2, 1);
        let running = Running::start(&program, &[&wires.socket("b0"), &wires.socket("b1")], options);
        let [mut left, mut right] = ["a0", "a1"].map(|port| {
            let config = LinkConfig::new(wires.socket(port));
            let aggregation = Aggregation { unfinished: true, ..Aggregation::default() };
            End::attach(if aggregate { config.aggregate(aggregation) } else { config })
        });
        wires.wait_until_up();
        settle(&mut [&mut left, &mut right], aggregate, 0);
        // Its own sides of both links, too, for it says what it packed.
        let agreed = || !aggregate || ["b0", "b1"].iter().all(|link| running.agreements(&wires.socket(link)) > 0);
        until_tended(&mut [&mut left, &mut right], agreed);
        exchange(&mut left, &mut right, 5000, None);
        exchange(&mut right, &mut left, 2000, None);
        // The node goes and comes back; the program attaches again.
        wires.restart();
        settle(&mut [&mut left, &mut right], aggregate, 1);
        wires.wait_until_up();
        settle(&mut [&mut left, &mut right], aggregate, 1);
        exchange(&mut left, &mut right, 3000, None);
        let text = running.end();
        let packed = text.lines().filter(|line| !line.contains(" 0 in aggregates")).count();
        assert_eq!(packed, if aggregate { 2 } else { 0 }, "{text}");
    }
}

/// What arrives with a packet leaves with it, C or not.
#[test]
fn what_travels_with_a_packet_goes_through_c() {
    let dir = tempfile::tempdir().unwrap();
    let program = build("cnf/examples/c/l2fwd.c", &dir, true);
    let wires = Wires::start(2, 1);
    let _running = Running::start(&program, &[&wires.socket("b0"), &wires.socket("b1")], &["-a"]);
    let [mut left, mut right] =
        ["a0", "a1"].map(|port| End::attach(LinkConfig::new(wires.socket(port)).aggregate(Aggregation::default())));
    settle(&mut [&mut left, &mut right], true, 0);
    exchange(&mut left, &mut right, 300, Some(|number| Meta { flow: Some(!u32::from(number)), ..Meta::default() }));
}

/// A packet that the example's other link cannot take unfinished: it was finished before it came there.
#[test]
fn c_is_not_given_what_it_did_not_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let program = build("cnf/examples/c/l2fwd.c", &dir, true);
    let wires = Wires::start(2, 1);
    let _running = Running::start(&program, &[&wires.socket("b0"), &wires.socket("b1")], &["-a"]);
    let [mut left, mut right] = ["a0", "a1"].map(|port| {
        let aggregation = Aggregation { unfinished: true, ..Aggregation::default() };
        End::attach(LinkConfig::new(wires.socket(port)).aggregate(aggregation))
    });
    settle(&mut [&mut left, &mut right], true, 0);
    let mut frame = vec![0; 60];
    let offload = Offload { checksum: Checksum::Unfinished { start: 14, offset: 0 }, segmentation: None };
    assert!(left.queues[0].send(Packet { bytes: &frame, meta: Meta { flow: None, offload } }));
    let mut burst = Burst::new();
    until("the packet", || {
        left.tend();
        right.tend();
        right.queues[0].receive(&mut burst) == 1
    });
    // The sum of nothing: its complement.
    frame[14..16].fill(0xff);
    let packet = burst.packet(0).unwrap();
    assert_eq!((packet.bytes, packet.meta), (&*frame, Meta::default()));
}

#[test]
fn what_must_be_refused_is_refused() {
    for shared in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let program = build("cnf/src/ffi/tests/abuse.c", &dir, shared);
        let wires = Wired::start(1, 1);
        let output = Command::new(program).arg(wires.socket("a0")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    }
}
