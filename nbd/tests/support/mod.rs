//! What the tests share: servers, programs that may be missing, bytes, certificates.

#![allow(clippy::unwrap_used, reason = "tests say what went wrong by the panic")]
// Each file of tests is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};
use stillpoint_nbd::client::{Client, Error, Options as ClientOptions};
use stillpoint_nbd::server::{Options, Server};
use stillpoint_nbd::{Address, Exports, FileExport, MemoryExport, Named, Uri};

/// Far more than anything here needs.
pub const LONG: Duration = Duration::from_mins(1);

/// A server on a unix socket in a folder of its own.
pub struct Served {
    pub server: Server,
    folder: tempfile::TempDir,
}

impl Served {
    pub fn new(exports: impl Exports + 'static, options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::new(Arc::new(exports), options);
        server.listen_unix(&folder.path().join("socket")).unwrap();
        Self { server, folder }
    }

    /// A disk in memory under the name `disk`.
    pub fn memory(bytes: Vec<u8>) -> (Self, Arc<MemoryExport>) {
        let disk = Arc::new(MemoryExport::new(bytes));
        let exports = Named::default().and("disk", disk.clone());
        (Self::new(exports, Options::default()), disk)
    }

    /// A file of these bytes, writable; answers with its path too.
    pub fn file(bytes: &[u8]) -> (Self, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        write_sparse(&path, bytes);
        let export = FileExport::writable(&path).unwrap();
        let server = Server::new(Arc::new(Named::one("disk", export)), Options::default());
        server.listen_unix(&folder.path().join("socket")).unwrap();
        (Self { server, folder }, path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///disk?socket={}", self.socket().display())
    }

    pub fn raw(&self) -> Raw {
        Raw::connect(&self.socket())
    }

    pub fn client(&self, options: ClientOptions) -> Client {
        Client::connect_unix(&self.socket(), options).unwrap()
    }

    /// The connections all end by themselves.
    pub fn ends_empty(&self) {
        for _ in 0..LONG.as_millis() / 5 {
            if self.server.connections() == 0 {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{} connections stay", self.server.connections());
    }
}

/// Writes a file with holes where whole blocks are zero.
pub fn write_sparse(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (n, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|b| *b != 0) {
            file.write_all_at(block, n as u64 * 4096).unwrap();
        }
    }
}

/// A peer that says whatever it likes.
pub struct Raw(pub UnixStream);

impl Raw {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        Self(stream)
    }

    /// Takes the server's first word and answers it.
    pub fn hello(mut self) -> Self {
        assert_eq!(self.take(18), b"NBDMAGICIHAVEOPT\0\x03");
        self.send(&3u32.to_be_bytes());
        self
    }

    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn option(&mut self, number: u32, length: u32, data: &[u8]) -> bool {
        let mut out = b"IHAVEOPT".to_vec();
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(data);
        self.send(&out)
    }

    /// The next answer to an option: kind and data.
    pub fn answer(&mut self) -> (u32, Vec<u8>) {
        let header = self.take(20);
        assert_eq!(header[..8], 0x0003_e889_0455_65a9u64.to_be_bytes());
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let len = word(16) as usize;
        (word(12), self.take(len))
    }

    /// Enters the transmission phase by `EXPORT_NAME`; answers with size and flags.
    pub fn go(&mut self) -> (u64, u16) {
        assert!(self.option(1, 4, b"disk"));
        let reply = self.take(10);
        let size = u64::from_be_bytes(reply[..8].try_into().unwrap());
        (size, u16::from_be_bytes([reply[8], reply[9]]))
    }

    pub fn request(&mut self, command: u16, flags: u16, cookie: u64, at: u64, len: u32) -> bool {
        let mut out = 0x2560_9513u32.to_be_bytes().to_vec();
        out.extend_from_slice(&flags.to_be_bytes());
        out.extend_from_slice(&command.to_be_bytes());
        out.extend_from_slice(&cookie.to_be_bytes());
        out.extend_from_slice(&at.to_be_bytes());
        out.extend_from_slice(&len.to_be_bytes());
        self.send(&out)
    }

    /// A simple reply: error and cookie.
    pub fn reply(&mut self) -> (u32, u64) {
        let bytes = self.take(16);
        assert_eq!(bytes[..4], 0x6744_6698u32.to_be_bytes());
        let error = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        (error, u64::from_be_bytes(bytes[8..].try_into().unwrap()))
    }

    /// The server has hung up, perhaps after a last word.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Bytes that differ everywhere, from a seed, with zero blocks among them.
pub fn disk(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes = Vec::with_capacity(len + 4096);
    while bytes.len() < len {
        if dice.below(3) == 0 {
            bytes.resize(bytes.len() + 4096 * (1 + dice.below(8) as usize), 0);
        } else {
            for _ in 0..512 {
                bytes.extend_from_slice(&dice.next().to_le_bytes());
            }
        }
    }
    bytes.truncate(len);
    bytes
}

/// Random numbers from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Whether all programs are there. If not it says so loudly, and with CI=true it fails.
pub fn has(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&&str> = programs.iter().filter(|p| find(p).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    eprintln!("SKIP SKIP SKIP {test}: missing {missing:?}");
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!ci, "with CI=true nothing is skipped: {test}: {missing:?}");
    false
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// A program that [`has`] found; one that hangs is ended.
pub fn tool(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("timeout");
    command
        // The libraries of nbdsh belong to the system's own Python.
        .env("PATH", format!("/usr/bin:{path}"))
        .arg("60")
        .arg(find(program).unwrap())
        .stdin(Stdio::null());
    command
}

/// A program for [`Theirs`], which ends it.
pub fn daemon(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap());
    command.stdin(Stdio::null());
    command
}

/// Runs a program that must succeed; answers with its output.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", story(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn story(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Another program's server; it ends with the value.
pub struct Theirs {
    child: Child,
    /// Where it wrote its process id, if it left our child behind.
    pid: Option<PathBuf>,
    address: Address,
}

impl Theirs {
    /// Starts it.
    pub fn start(command: &mut Command, address: Address) -> Self {
        let child = command.spawn().unwrap();
        let pid = None;
        Self {
            child,
            pid,
            address,
        }
    }

    /// Starts one that cannot be kept from going into the background.
    pub fn detached(command: &mut Command, port: u16, pid: PathBuf) -> Self {
        let address = Address::Tcp("127.0.0.1".to_owned(), port);
        let mut theirs = Self::start(command, address);
        theirs.pid = Some(pid);
        theirs
    }

    /// A client, as soon as it listens. Some serve one connection only, so that nothing is tried before.
    pub fn client(&self, options: &ClientOptions) -> Client {
        let uri = Uri {
            address: self.address.clone(),
            tls: options.tls.is_some(),
            export: String::new(),
        };
        for _ in 0..LONG.as_millis() / 5 {
            match Client::connect(&uri, options.clone()) {
                Ok(client) => return client,
                Err(Error::Io(error)) if is_early(&error) => {}
                Err(error) => panic!("{error}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("nobody listens on {uri}");
    }
}

fn is_early(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    [ConnectionRefused, NotFound].contains(&error.kind())
}

impl Drop for Theirs {
    fn drop(&mut self) {
        if let Some(pid) = self.pid.take().and_then(|pid| fs::read_to_string(pid).ok()) {
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes an authority and certificates of a server and a client, in the files that QEMU and libnbd look for.
pub fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
    use rcgen::{CertifiedIssuer, DnType, KeyUsagePurpose};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "test-ca");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca-cert.pem"), authority.pem()).unwrap();
    let purposes = [
        ("server", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ];
    for (name, purpose) in purposes {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        // QEMU refuses certificates without the second (10.0, `crypto/tlscredsx509.c`).
        let usages = [
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.key_usages = usages.to_vec();
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}-cert.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}
