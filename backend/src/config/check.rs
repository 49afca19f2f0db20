// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What only shows when all sections are seen together, and on this machine.

use std::collections::{HashMap, HashSet};

use super::{Config, Fault, MAX_PORTS, MAX_QUEUE_PAIRS, MAX_WORKERS, Machine, Name, Place, PortConfig, Problem};

impl Config {
    /// Checks how the parts fit together, and whether `machine` has what they ask for.
    ///
    /// [`Config::parse`] has done this; a configuration built in code has yet to be checked.
    ///
    /// # Errors
    /// The first thing found wrong, with its section and key.
    pub fn check(&self, machine: &Machine) -> Result<(), Fault> {
        self.control.check()?;
        self.check_workers(machine)?;
        self.check_ports()?;
        self.check_crossconnects()?;
        self.check_controllers()
    }

    fn check_workers(&self, machine: &Machine) -> Result<(), Fault> {
        bounded("worker", self.workers.len(), MAX_WORKERS)?;
        let mut names = HashSet::new();
        for (index, worker) in self.workers.iter().enumerate() {
            if !names.insert(&worker.name) {
                let problem = Problem::DuplicateWorker { name: worker.name.to_string() };
                return Err(Place::in_worker(index, "name").fault(problem));
            }
            if let Some(cpu) = worker.cpu.filter(|cpu| !machine.has_cpu(*cpu)) {
                let (worker, available) = (worker.name.to_string(), machine.to_string());
                return Err(Place::in_worker(index, "cpu").fault(Problem::NoSuchCpu { worker, cpu, available }));
            }
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), Fault> {
        bounded("port", self.ports.len(), MAX_PORTS)?;
        let workers: Vec<&Name> = self.workers.iter().map(|worker| &worker.name).collect();
        let mut names = HashSet::new();
        let mut sockets = HashMap::from([(self.control.socket.as_path(), "[control]".to_owned())]);
        for (index, port) in self.ports.iter().enumerate() {
            if !names.insert(&port.name) {
                let problem = Problem::DuplicatePort { name: port.name.to_string() };
                return Err(Place::in_port(index, "name").fault(problem));
            }
            if let Some(other) = sockets.insert(&port.socket, format!("port \"{}\"", port.name)) {
                let (name, socket) = (port.name.to_string(), port.socket.to_path_buf());
                let problem = Problem::DuplicateSocket { port: name, socket, other };
                return Err(Place::in_port(index, "socket").fault(problem));
            }
            port.check(&workers).map_err(|fault| Fault { place: Place { index, ..fault.place }, ..fault })?;
        }
        Ok(())
    }

    fn check_crossconnects(&self) -> Result<(), Fault> {
        let mut wired = HashSet::new();
        for (index, pair) in self.crossconnects.iter().enumerate() {
            let [left, right] = &pair.ports;
            let wrong = |problem| Err(Place::in_crossconnect(index).fault(problem));
            if left == right {
                return wrong(Problem::CrossconnectSelf { port: left.to_string() });
            }
            for port in [left, right] {
                if self.port(port).is_none() {
                    return wrong(Problem::CrossconnectUnknown { port: port.to_string() });
                }
                if !wired.insert(port) {
                    return wrong(Problem::CrossconnectTwice { port: port.to_string() });
                }
            }
        }
        Ok(())
    }
}

impl PortConfig {
    /// Checks one port against the names of the workers that there are.
    ///
    /// A node calls it for a port that is added later.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(&self, workers: &[&Name]) -> Result<(), Fault> {
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queues) {
            let problem = Problem::Queues { port: self.name.to_string(), found: self.queues };
            return Err(Place::in_port(0, "queues").fault(problem));
        }
        for (at, worker) in self.workers.iter().enumerate() {
            let port = self.name.to_string();
            let wrong = |problem| Err(Place::in_port(0, "workers").fault(problem));
            if !workers.contains(&worker) {
                let known = workers.iter().map(ToString::to_string).collect();
                return wrong(Problem::UnknownWorker { port, worker: worker.to_string(), known });
            }
            if self.workers.iter().take(at).any(|earlier| earlier == worker) {
                return wrong(Problem::WorkerTwice { port, worker: worker.to_string() });
            }
        }
        Ok(())
    }
}

fn bounded(section: &'static str, found: usize, max: usize) -> Result<(), Fault> {
    if found > max {
        return Err(Place::top(section).fault(Problem::TooMany { section, found, max }));
    }
    Ok(())
}
