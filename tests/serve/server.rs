//! A running `still serve`.

use crate::support::{self, Home, Ran, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use stillpoint_nbd::client::{Client, Connection, Options};

/// Far more than a server needs to start.
const LONG: Duration = Duration::from_mins(1);

/// A server on a unix socket in the folder of its store. Killed when dropped.
pub struct Server {
    child: Option<Child>,
    pub socket: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Serves the store of this home.
    pub fn start(home: &Home, more: &[&str]) -> Self {
        let socket = home.path("nbd.sock");
        let nbd = format!("unix:{}", socket.display());
        let mut arguments = vec!["serve", "--nbd", &nbd];
        arguments.extend(more);
        Self::run(home, home.command(&arguments))
    }

    /// Runs a command that serves on the socket.
    pub fn run(home: &Home, mut command: Command) -> Self {
        let (socket, log) = (home.path("nbd.sock"), home.path("serve.log"));
        let out = File::create(&log).expect("a log");
        command.stdout(Stdio::piped()).stderr(out);
        let child = command.spawn().expect("the program starts");
        let mut server = Self {
            child: Some(child),
            socket,
            log,
        };
        let since = Instant::now();
        while UnixStream::connect(&server.socket).is_err() {
            let child = server.child.as_mut().expect("it runs");
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{ended:?}: {}", server.log());
            assert!(since.elapsed() < LONG, "{}", server.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        // The socket is there before the log says so.
        while !server.log().contains("ready") {
            assert!(since.elapsed() < LONG, "{}", server.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// The URI of an export.
    pub fn uri(&self, export: &str) -> String {
        let address = stillpoint_nbd::Address::Unix(self.socket.clone());
        let uri = stillpoint_nbd::Uri {
            address,
            tls: false,
            export: export.to_owned(),
        };
        uri.to_string()
    }

    /// Our own client on an export.
    pub fn client(&self, export: &str) -> Connection {
        let client = Client::connect_unix(&self.socket, Options::default());
        let client = client.expect("it connects");
        client.go(export, &[]).expect("the export is there")
    }

    /// Whether nobody gets an export of that name.
    pub fn refuses(&self, export: &str) -> bool {
        let client = Client::connect_unix(&self.socket, Options::default());
        client.expect("it connects").go(export, &[]).is_err()
    }

    /// Bytes of memory at the worst, so far.
    pub fn peak_rss(&self) -> u64 {
        let status = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(status).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.expect("the kernel says so").trim();
        kib.trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
            << 10
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("it runs");
    }

    /// Stops it by SIGTERM.
    pub fn stop(mut self) -> Ran {
        self.signal(Signal::SIGTERM);
        let child = self.child.take().expect("it runs");
        let ran = support::finish(child, "still serve".to_owned());
        eprintln!("{}", self.log());
        ran
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            eprintln!("{}", self.log());
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a tool that must succeed.
#[track_caller]
pub fn run_tool(program: &str, arguments: &[&str]) -> Ran {
    support::run(tool(program).args(arguments)).code(0)
}
