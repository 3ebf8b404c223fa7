//! A Docker daemon for one test, in its own namespaces.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The images of the daemon.
pub(crate) const IMAGES: [&str; 2] = ["oncebox/node", "oncebox/agent"];

/// A daemon with all its processes, in namespaces that end when this is dropped.
pub(crate) struct Daemon {
    directory: TempDir,
    /// The first process of the namespaces; all others end with it.
    namespaces: Child,
    daemon: Option<Child>,
    cgroup: String,
    /// The processors of the daemon, in the format of `taskset`; `None` means all.
    processors: Option<&'static str>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_after("true")
    }

    /// Starts a daemon on a host with one processor.
    pub(crate) fn start_on_one_processor() -> Self {
        Self::start_on(Some("0"), "true")
    }

    /// Starts a daemon with a disk of this size.
    pub(crate) fn start_with_room(size: &str) -> Self {
        Self::start_after(&format!("mkdir \"$DATA\" && mount -t tmpfs -o size={size} none \"$DATA\""))
    }

    /// Starts a daemon in namespaces in which a shell command has been run.
    pub(crate) fn start_after(command: &str) -> Self {
        Self::start_on(None, command)
    }

    fn start_on(processors: Option<&'static str>, command: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut namespaces = Command::new("unshare");
        namespaces.args(["--fork", "--pid", "--net", "--mount", "--mount-proc", "--kill-child", "sh", "-c"]);
        // Every daemon would use the host's containerd if it found one, but that does not see the mounts in these
        // namespaces.
        let hide = "if [ -d /run/containerd ]; then mount -t tmpfs none /run/containerd; fi";
        namespaces.arg(format!("ip link set lo up && {hide} && {command} && echo ready && exec sleep infinity"));
        namespaces.env("DATA", directory.path().join("data"));
        let mut namespaces = namespaces.stdout(Stdio::piped()).spawn().expect("unshare");
        let mut ready = String::new();
        let mut said = std::io::BufReader::new(namespaces.stdout.take().expect("its output"));
        std::io::BufRead::read_line(&mut said, &mut ready).expect("its output");
        assert_eq!(ready, "ready\n", "these namespaces need root, and `ip`");
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let cgroup = format!("oncebox-test-{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let mut daemon = Self { directory, namespaces, daemon: None, cgroup, processors };
        daemon.start_again();
        let began = Instant::now();
        daemon.load(&IMAGES);
        eprintln!("images in after {:?}", began.elapsed());
        daemon
    }

    /// Starts the daemon, which must not run, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        // A killed daemon leaves PID files. They keep the next one from starting if another process has that PID by
        // now, or if the old process is not reaped yet: containerd ends with the daemon.
        let _ = fs::remove_file(self.path("pid"));
        let _ = fs::remove_file(self.path("exec/containerd/containerd.pid"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init(), "--pid", "--net", "--mount"]);
        command.args(self.processors.iter().flat_map(|processors| ["taskset", "--cpu-list", processors]));
        command.arg("dockerd");
        command.args(["--data-root", &self.path("data"), "--exec-root", &self.path("exec")]);
        command.args(["--pidfile", &self.path("pid"), "--host", &self.address()]);
        command.args(["--cgroup-parent", &format!("/{}", self.cgroup)]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.daemon = Some(command.spawn().expect("nsenter"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self
            .command(&["version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("docker")
            .success()
        {
            assert!(Instant::now() < deadline, "the daemon does not answer: {}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn load(&self, images: &[&str]) {
        let save = Command::new("docker").arg("save").args(images).stdout(Stdio::piped()).spawn();
        let mut save = save.expect("docker save");
        let mut load = self.command(&["load", "--quiet"]);
        let load = load.stdin(save.stdout.take().expect("its output")).stdout(Stdio::null()).status();
        assert!(load.expect("docker load").success() && save.wait().expect("docker save").success());
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().rev().take(5).collect::<Vec<_>>().join("\n")
    }

    /// Sends the daemon a signal, but not its containers.
    pub(crate) fn signal(&self, name: &str) {
        let daemon = self.daemon.as_ref().expect("it runs").id();
        let status = Command::new("kill").args([&format!("-{name}"), &child_of(daemon)]).status();
        assert!(status.expect("kill").success());
        if name == "CONT" {
            // Its parent, which waits for it, has stopped with it.
            let _ = Command::new("kill").args(["-CONT", &daemon.to_string()]).status();
        }
    }

    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.daemon.take().expect("it runs").wait().expect("its end");
    }

    /// Stops the daemon as the system does. It ends its containers itself.
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        self.daemon.take().expect("it runs").wait().expect("its end");
    }

    /// Runs a command in the namespaces; returns whether it succeeded.
    pub(crate) fn within(&self, command: &[&str]) -> bool {
        self.enter(command).stderr(Stdio::null()).status().expect("nsenter").success()
    }

    /// The output of a command in the namespaces.
    pub(crate) fn output_of(&self, command: &[&str]) -> String {
        String::from_utf8(self.enter(command).output().expect("nsenter").stdout).expect("text")
    }

    fn enter(&self, command: &[&str]) -> Command {
        let mut enter = Command::new("nsenter");
        enter.args(["--target", &self.init(), "--pid", "--net", "--mount"]).args(command);
        enter
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock"))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn init(&self) -> String {
        child_of(self.namespaces.id())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.address()]).args(arguments);
        command
    }

    /// The output of a docker command.
    pub(crate) fn docker(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the docker command");
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", &self.init()]).status();
        let _ = self.namespaces.wait();
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        // The cgroups of the containers are in the host's hierarchy.
        let below = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(below).into_iter().flatten().flatten().map(|entry| entry.path());
        hierarchies.chain([below.to_owned()]).for_each(|hierarchy| remove_groups(&hierarchy.join(&self.cgroup)));
    }
}

fn remove_groups(group: &Path) {
    let within = fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    within.filter(|path| path.is_dir()).for_each(|path| remove_groups(&path));
    let _ = fs::remove_dir(group);
}

/// The only child of a process, which waits for it.
fn child_of(process: u32) -> String {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.expect("the process").trim().to_owned()
}
