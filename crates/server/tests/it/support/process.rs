//! The binary itself: as a server that can be killed, and as a command.

use super::{Method, TestRequest, Value};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A server process; killed when dropped.
#[derive(Debug)]
pub struct Terse {
    child: Child,
    pub address: SocketAddr,
    pub data_dir: PathBuf,
}

impl Terse {
    /// Starts a server on this data folder, on a free port, without rate limits.
    pub fn start(data_dir: &Path) -> Self {
        Terse::start_with(data_dir, &[])
    }

    /// The same with more variables.
    pub fn start_with(data_dir: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Terse::command(data_dir);
        command.env("TERSE_LISTEN", "127.0.0.1:0").env("TERSE_RATE_LIMITS", "off");
        command.envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("the server says where it listens").unwrap();
        let address = first.rsplit("//").next().unwrap().trim().parse().unwrap();
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Terse { child, address, data_dir: data_dir.to_owned() }
    }

    /// The binary with this data folder and no other variable of ours.
    pub fn command(data_dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_terse"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TERSE_")) {
            command.env_remove(name);
        }
        command.env("TERSE_DATA_DIR", data_dir).env("TERSE_LOG", "warn");
        // Small files, since each test makes some.
        command.env("TERSE_CLICKS_SEGMENT_KIB", "64");
        command
    }

    /// Runs a command on this data folder.
    pub fn run(data_dir: &Path, arguments: &[&str]) -> Output {
        Terse::command(data_dir).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command that must succeed, and returns what it prints, without the line's end.
    #[track_caller]
    pub fn ok(data_dir: &Path, arguments: &[&str]) -> String {
        let output = Terse::run(data_dir, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The same, as JSON.
    #[track_caller]
    pub fn ok_json(data_dir: &Path, arguments: &[&str]) -> Value {
        serde_json::from_str(&Terse::ok(data_dir, arguments)).unwrap()
    }

    pub fn request(&self, method: Method, path: &str) -> TestRequest {
        TestRequest::new(self.address, method, path)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; the exit code, or `None` when it did not end by itself in time.
    pub fn terminate(mut self, seconds: u64) -> Option<i32> {
        let id = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        for _ in 0..seconds * 100 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Terse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
