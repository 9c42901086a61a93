//! A server whose log is read.

use super::{Place, Terse};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A server process with its log in a file; killed when dropped.
#[derive(Debug)]
pub struct Logged {
    child: Child,
    pub address: SocketAddr,
    log: PathBuf,
}

impl Logged {
    /// A server on the data folder of `place`, on a free port and without rate limits, with these variables on top.
    pub fn start(place: &Place, variables: &[(&str, &str)]) -> Self {
        Logged::start_under(place, variables, "", |_| {})
    }

    /// The same after a line of shell, by a command that was prepared further.
    pub fn start_under(
        place: &Place,
        variables: &[(&str, &str)],
        prelude: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let log = place.path("log");
        let terse = Terse::command(&place.data());
        // A write beyond the limit that `limit_files` sets must fail rather than end the process.
        let mut command = Command::new("sh");
        let script = format!("trap '' XFSZ; {prelude}\nexec \"$0\" serve");
        command.args(["-c", &script]).arg(terse.get_program());
        for (name, value) in terse.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TERSE_LISTEN", "127.0.0.1:0").env("TERSE_RATE_LIMITS", "off");
        command.env("XDG_RUNTIME_DIR", place.run_dir()).env("RUNTIME_DIRECTORY", place.run_dir());
        command.envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("the server says where it listens").unwrap();
        let address = first.rsplit("//").next().unwrap().trim().parse().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        Logged { child, address, log }
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// No file of the server may grow beyond so many bytes from here on; `None` for no limit.
    pub fn limit_files(&self, bytes: Option<u64>) {
        prlimit(Some(self.pid()), Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    }

    /// Lets it do nothing until [`Logged::resume`].
    pub fn pause(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
    }

    pub fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    /// Memory of its own, in bytes.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Asks it to stop.
    pub fn signal_stop(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).unwrap()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
