//! One `redis-server` process and its folder.

use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A folder under the system's temporary one; removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let name = format!("tidings-redis-{:016x}", RandomState::new().hash_one(0));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a temporary folder can be made");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Option<Child>,
    // After the process, so that it is dropped after it.
    folder: Folder,
}

impl Process {
    pub(crate) fn new() -> Self {
        Self { child: None, folder: Folder::new() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the server with these arguments; it does not wait for it.
    pub(crate) fn launch(&mut self, arguments: impl IntoIterator<Item = &'static str>) {
        self.kill9();
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("the log can be written");
        let errors = log.try_clone().expect("a file can be cloned");
        let mut command = Command::new("redis-server");
        command.args(arguments).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn();
        self.child = Some(child.unwrap_or_else(|error| {
            panic!("cannot run redis-server ({error}): install it, on Debian `apt-get install redis-server`")
        }));
    }

    /// Whether it was started and has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal by name: `STOP`, `CONT`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("the server runs").id();
        // The shell's own `kill`: not every system has the program.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
        assert!(status.expect("`sh` runs").success(), "cannot send SIG{name}");
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder().join("log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}
