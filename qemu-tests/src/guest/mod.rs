// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A QEMU guest: a stock Debian kernel under TCG (no KVM needed), one virtio-net device on a vhost-user socket or a tap
//! device, and a shell on the serial line.

mod archive;
mod initramfs;
mod kernel;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::netns::NetNs;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::scenario::WorkDir;
use crate::testpmd::{Ring, mac};
use crate::wait::wait_until;

/// How long a guest may take from power-on to its shell.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to migrate.
const MIGRATION_LIMIT: Duration = Duration::from_secs(90);
/// What the init script prints when the shell is about to read.
const READY: &str = "@@READY@@";
/// What it prints before that when there is no network device.
const NO_NETWORK: &str = "@@NO NETWORK@@";
/// Guest memory: room for a file of 64 MiB and the kernel.
const MEMORY: &str = "256M";

/// What a guest is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// The name of its log.
    pub name: String,
    /// 1…250: its MAC address is `52:54:00:00:00:<number>`, its IP address 10.9.0.`<number>`/24.
    pub number: u8,
    /// What its network device is connected to.
    pub wire: Wire,
    /// Write all frames, as they are on the wire, to [`capture`](Self::capture).
    pub captured: bool,
    /// Programs of this machine that it has as well, at their own places.
    pub programs: Vec<PathBuf>,
    /// It does not boot: it waits for another one to migrate to it.
    pub incoming: bool,
}

/// What a guest's network device is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wire {
    /// A vhost-user socket.
    VhostUser {
        /// QEMU connects to it.
        socket: PathBuf,
        /// The ring layout that the guest may use.
        ring: Ring,
        /// Reconnect, every second, to a backend that went away.
        reconnect: bool,
    },
    /// A tap device of the host, with all offloads.
    Tap {
        /// Its name, in the namespace in which the guest is started.
        interface: String,
    },
}

impl GuestConfig {
    /// A guest on a vhost-user socket that does not reconnect.
    pub fn new(name: &str, number: u8, socket: &Path, ring: Ring) -> Self {
        let wire = Wire::VhostUser { socket: socket.to_owned(), ring, reconnect: false };
        Self { name: name.to_owned(), number, wire, captured: false, programs: Vec::new(), incoming: false }
    }

    /// A guest on a tap device, whose frames are captured.
    pub fn on_tap(name: &str, number: u8, interface: &str) -> Self {
        let wire = Wire::Tap { interface: interface.to_owned() };
        Self { name: name.to_owned(), number, wire, captured: true, programs: Vec::new(), incoming: false }
    }

    /// The same, but it reconnects.
    #[must_use]
    pub fn reconnecting(mut self) -> Self {
        if let Wire::VhostUser { reconnect, .. } = &mut self.wire {
            *reconnect = true;
        }
        self
    }

    /// The same, with a program of this machine.
    #[must_use]
    pub fn with_program(mut self, program: &Path) -> Self {
        self.programs.push(program.to_owned());
        self
    }

    /// The same, but it waits for one that is like it in all but name and socket to migrate to it.
    #[must_use]
    pub fn waiting(mut self) -> Self {
        self.incoming = true;
        self
    }

    /// Where its frames are written to if they are captured.
    pub fn capture(&self, work: &WorkDir) -> PathBuf {
        work.file(&format!("{}.pcap", self.name))
    }

    /// Its IP address.
    pub fn ip(&self) -> String {
        format!("10.9.0.{}", self.number)
    }

    /// The socket at which its QEMU takes orders.
    fn monitor(&self, work: &WorkDir) -> PathBuf {
        work.file(&format!("{}.qmp", self.name))
    }

    /// The socket at which it waits for another one.
    fn door(&self, work: &WorkDir) -> PathBuf {
        work.file(&format!("{}.incoming", self.name))
    }

    fn arguments(&self, work: &WorkDir) -> Vec<String> {
        let mac = mac(self.number);
        let device = format!("virtio-net-pci,netdev=n0,mac={mac},disable-legacy=on");
        let mut options = match &self.wire {
            Wire::VhostUser { socket, ring, reconnect } => {
                let reconnect = if *reconnect { ",reconnect=1" } else { "" };
                let packed = if *ring == Ring::Packed { "on" } else { "off" };
                vec![
                    ("-machine", "memory-backend=mem".to_owned()),
                    ("-object", format!("memory-backend-memfd,id=mem,size={MEMORY},share=on")),
                    ("-chardev", format!("socket,id=c0,path={}{reconnect}", socket.display())),
                    ("-netdev", "vhost-user,id=n0,chardev=c0".to_owned()),
                    ("-device", format!("{device},packed={packed}")),
                ]
            }
            Wire::Tap { interface } => vec![
                ("-netdev", format!("tap,id=n0,ifname={interface},script=no,downscript=no,vhost=off")),
                ("-device", device),
            ],
        };
        options.push(("-qmp", format!("unix:{},server=on,wait=off", self.monitor(work).display())));
        if self.incoming {
            options.push(("-incoming", format!("unix:{}", self.door(work).display())));
        }
        if self.captured {
            let file = self.capture(work);
            options.push(("-object", format!("filter-dump,id=dump,netdev=n0,file={}", file.display())));
        }
        options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

/// The QEMU options of a machine with the guest's kernel and user space, a serial line on standard input and output, and
/// `memory` (as in `256M`), but without network device; `ip` is the address that its network device will get. It has these programs of this machine.
pub fn machine(work: &WorkDir, memory: &str, ip: &str, programs: &[PathBuf]) -> Result<Vec<String>> {
    let kernel = kernel::find()?;
    let names = programs.iter().filter_map(|program| program.file_name()?.to_str());
    let initramfs = work.file(&["initramfs"].into_iter().chain(names).collect::<Vec<_>>().join("-"));
    if !initramfs.exists() {
        initramfs::write(&kernel, programs, &initramfs)?;
    }
    let options = [
        ("-machine", "q35,accel=tcg".to_owned()),
        ("-cpu", "max".to_owned()),
        ("-m", memory.to_owned()),
        ("-kernel", kernel.image.display().to_string()),
        ("-initrd", initramfs.display().to_string()),
        ("-append", format!("console=ttyS0 quiet loglevel=1 panic=-1 mitigations=off random.trust_cpu=on ip={ip}")),
        ("-serial", "stdio".to_owned()),
        ("-display", "none".to_owned()),
        ("-monitor", "none".to_owned()),
        // Without vectors: QEMU 7.2 under TCG crashes when a vhost-user device with a control queue gets MSI-X vectors.
        ("-global", "virtio-net-pci.vectors=0".to_owned()),
        ("-global", "virtio-net-pci.romfile=".to_owned()),
    ];
    let flags = ["-nodefaults", "-no-user-config"].map(str::to_owned);
    Ok(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).chain(flags).collect())
}

/// What a command in the guest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// What it printed.
    pub text: String,
}

/// A command that runs in the guest's shell; the shell takes no other until it has ended.
#[derive(Debug)]
#[must_use = "a command that nobody waits for blocks the shell"]
pub struct Running {
    serial: u64,
    /// In which QEMU's life, and where in its output.
    life: u32,
    mark: u64,
    command: String,
}

/// A running guest.
#[derive(Debug)]
pub struct Guest {
    config: GuestConfig,
    process: Process,
    since_boot: u64,
    commands: u64,
    /// How often it has migrated.
    life: u32,
}

impl Guest {
    /// Powers the guest on. Does not wait: call [`ready`](Self::ready), so that several can boot at once.
    pub fn spawn(work: &WorkDir, config: &GuestConfig) -> Result<Self> {
        Self::spawn_with(work, config, Vec::new())
    }

    /// As [`spawn`](Self::spawn), in a namespace.
    pub fn spawn_in(work: &WorkDir, config: &GuestConfig, ns: &NetNs) -> Result<Self> {
        Self::spawn_with(work, config, ns.command(&[]))
    }

    fn spawn_with(work: &WorkDir, config: &GuestConfig, prefix: Vec<OsString>) -> Result<Self> {
        let mut argv = prefix;
        argv.push("qemu-system-x86_64".into());
        let arguments =
            machine(work, MEMORY, &config.ip(), &config.programs)?.into_iter().chain(config.arguments(work));
        argv.extend(arguments.map(OsString::from));
        let process = Process::spawn_errors_apart(work, &config.name, &argv)?;
        Ok(Self { config: config.clone(), since_boot: process.born(), process, commands: 0, life: 0 })
    }

    /// Waits until its shell reads commands; the network is up by then.
    pub fn ready(&mut self) -> Result<()> {
        let greeting = |t: &str| t.contains(READY).then(|| !t.contains(NO_NETWORK));
        let network = self.process.wait_printed(self.since_boot, "its shell's greeting", BOOT_LIMIT, greeting)?;
        ensure!(network, "{} found no network device", self.config.name);
        Ok(())
    }

    /// Its IP address.
    pub fn ip(&self) -> String {
        self.config.ip()
    }

    /// Runs a command to its end and returns what it came to.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Answer> {
        let running = self.begin(command)?;
        self.finish(&running, limit)
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn sh(&mut self, command: &str, limit: Duration) -> Result<String> {
        let answer = self.run(command, limit)?;
        ensure!(answer.status == 0, "{}: '{command}' ended with {}: {}", self.config.name, answer.status, answer.text);
        Ok(answer.text)
    }

    /// Starts a command in the foreground of the shell.
    pub fn begin(&mut self, command: &str) -> Result<Running> {
        self.commands += 1;
        let (serial, life, mark) = (self.commands, self.life, self.process.mark());
        let running = Running { serial, life, mark, command: command.to_owned() };
        // The marker is split so that an echo of the line would not be taken for its end.
        self.process.type_line(&format!("{{ {command}; }} </dev/null; echo \"@@\"\"{}:$?@@\"", running.serial))?;
        Ok(running)
    }

    /// Waits for a command that was begun.
    pub fn finish(&mut self, running: &Running, limit: Duration) -> Result<Answer> {
        let marker = format!("@@{}:", running.serial);
        let what = format!("the end of '{}'", running.command);
        let mark = if running.life == self.life { running.mark } else { self.process.born() };
        self.process.wait_printed(mark, &what, limit, |text| answer(text, &marker))
    }

    /// Reboots at once, without telling the device (as a crash would), and waits for the shell.
    pub fn reboot(&mut self) -> Result<()> {
        self.since_boot = self.process.mark();
        self.process.type_line("echo b > /proc/sysrq-trigger")?;
        self.ready()
    }

    /// Migrates to a guest that waits for it, and is that from then on; commands that were begun are finished there. Until it
    /// is there, `meanwhile` is called again and again. What stays behind, and stands still, is returned.
    pub fn migrate(&mut self, work: &WorkDir, to: Self, mut meanwhile: impl FnMut() -> Result<()>) -> Result<Process> {
        let mut source = Qmp::connect(&self.config.monitor(work))?;
        let mut target = Qmp::connect(&to.config.monitor(work))?;
        source.execute("migrate-set-parameters", &json!({ "max-bandwidth": 1_u64 << 30, "downtime-limit": 1000 }))?;
        source.execute("migrate", &json!({ "uri": format!("unix:{}", to.config.door(work).display()) }))?;
        wait_until("the migration to be over", MIGRATION_LIMIT, || {
            meanwhile()?;
            let state = source.execute("query-migrate", &json!({}))?;
            ensure!(state["status"] != "failed", "the migration failed: {state}");
            Ok(state["status"] == "completed")
        })?;
        wait_until("the guest to run there", MIGRATION_LIMIT, || {
            Ok(target.execute("query-status", &json!({}))?["running"] == true)
        })?;
        self.life += 1;
        self.since_boot = to.since_boot;
        self.config = to.config;
        Ok(std::mem::replace(&mut self.process, to.process))
    }

    /// Pings until an answer comes, for at most `limit`.
    pub fn ping_until_answered(&mut self, ip: &str, limit: Duration) -> Result<()> {
        let command = format!("for i in $(seq {}); do ping -c 1 -W 1 {ip} && break; done", limit.as_secs().max(1));
        let text = self.sh(&command, limit + Duration::from_secs(30))?;
        if !text.contains(" 0% packet loss") {
            bail!("{ip} did not answer {} within {limit:?}: {text}", self.config.name);
        }
        Ok(())
    }

    /// Loads the modules for tunnels and VLANs. Their devices are made by `/sbin/ip`.
    pub fn load_overlays(&mut self) -> Result<()> {
        self.sh("for module in /modules/overlays/*; do insmod $module || exit; done", BOOT_LIMIT).map(drop)
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Splits what a command printed from the marker that ends it: `<text>@@<serial>:<status>@@`.
fn answer(text: &str, marker: &str) -> Option<Answer> {
    let at = text.find(marker)?;
    let (status, rest) = text[at + marker.len()..].split_once("@@")?;
    let status = status.parse().context("a status").ok()?;
    // Until its line has ended, that end would be taken for the beginning of the next answer.
    rest.find('\n')?;
    let text = text[..at].replace('\r', "");
    Some(Answer { status, text: text.strip_prefix('\n').unwrap_or(&text).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_its_marker() {
        let got = answer("a\r\nb\r\n@@7:0@@\r\n", "@@7:");
        assert_eq!(got, Some(Answer { status: 0, text: "a\nb\n".to_owned() }));
        assert_eq!(answer("@@7:1", "@@7:"), None, "the marker has not ended yet");
        assert_eq!(answer("@@7:1@@", "@@7:"), None, "nor has its line");
        assert_eq!(answer("@@6:0@@", "@@7:"), None);
    }
}
