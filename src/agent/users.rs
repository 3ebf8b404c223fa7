//! The accounts of the image: they run user code and own its files.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Access, access};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::answer::Refused;
use crate::protocol::Code;

// Parsed here, because the C library's look-up needs plug-ins, which a static program cannot load.
const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The file that the C library reads first, according to the images' `nsswitch.conf`. It exists because most sandboxes
/// cannot write `/etc/passwd`.
const OWN_PASSWD: &str = "/run/extrausers/passwd";

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its login name.
    pub name: String,
    /// Its uid and gid; `None` if the agent is not root, and code runs under the agent's own account.
    pub ids: Option<(u32, u32)>,
    /// Its home, which is also the default working directory of code.
    pub home: PathBuf,
    /// Whether file operations for this account run with its rights, instead of root's. New files belong to the account
    /// in both cases.
    pub confined: bool,
}

impl User {
    /// Finds the account `user` of the image. An agent that is not root, as in tests without a container, uses its own
    /// account.
    pub(crate) fn find() -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
            let name = std::env::var("USER").unwrap_or_else(|_| "user".to_owned());
            return Ok(Self { name, ids: None, home, confined: true });
        }
        Self::named("user")?.ok_or_else(|| io::Error::other("the image has no account named `user`"))
    }

    fn named(name: &str) -> io::Result<Option<Self>> {
        let passwd = String::from_utf8_lossy(&std::fs::read(PASSWD)?).into_owned();
        Ok(passwd.lines().filter_map(Self::from_passwd).find(|user| user.name == name))
    }

    /// Changes the account's uid in this sandbox, also in the file from which programs look up accounts. The group
    /// stays.
    pub(crate) fn set_uid(&mut self, uid: u32) -> io::Result<()> {
        let Some((_, gid)) = self.ids else { return Ok(()) };
        self.ids = Some((uid, gid));
        if !is_mapped(&std::fs::read_to_string("/proc/self/uid_map")?, uid) {
            return Err(io::Error::other(format!(
                "user code cannot be uid {uid}, which the engine's user namespace lacks: see `user_ids` in oncebox.toml"
            )));
        }
        let passwd = String::from_utf8_lossy(&std::fs::read(PASSWD)?).into_owned();
        let (passwd, own) = with_uid(&passwd, &self.name, uid);
        match std::fs::write(PASSWD, passwd) {
            Err(err) if err.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                let path = Path::new(OWN_PASSWD);
                path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
                std::fs::write(path, own)
            }
            written => written,
        }
    }

    fn from_passwd(line: &str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = PathBuf::from(fields.nth(1)?);
        Some(Self { name: name.to_owned(), ids: Some((uid, gid)), home, confined: true })
    }

    /// Runs `work` with the rights of this user and no others, or with root's if the user is not confined. The rights
    /// belong to the calling thread until `work` returns, so it cannot be asynchronous.
    pub(crate) fn with_rights<T, E: From<io::Error>>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let Some((uid, gid)) = self.ids.filter(|_| self.confined) else { return work() };
        // Made before the change, so that it also covers a partial failure of the change and a panic of the work.
        let _root_again = RootAgain;
        let become_user = || {
            set_thread_groups(&[])?;
            set_thread_res_gid(None, Gid::from_raw(gid), None)?;
            set_thread_res_uid(None, Uid::from_raw(uid), None)
        };
        become_user().map_err(io::Error::from)?;
        work()
    }

    /// Fails if code that runs as the user could not enter a directory.
    ///
    /// The kernel is asked by access(2), which judges by the real user and group. `with_rights` changes the effective
    /// ones, after which the kernel denies access to the agent's entries in /proc even to root inside the sandbox, who
    /// may have it where users are not confined.
    fn enter(&self, path: &Path) -> io::Result<()> {
        // `.` in a directory is found by those who may enter it; it does not exist in other files.
        let inside = path.join(".");
        let Some((uid, gid)) = self.ids else { return Ok(access(inside, Access::EXISTS)?) };
        let _root_again = RootAgain;
        set_thread_groups(&[])?;
        set_thread_res_gid(Gid::from_raw(gid), None, None)?;
        set_thread_res_uid(Uid::from_raw(uid), None, None)?;
        Ok(access(inside, Access::EXISTS)?)
    }

    /// Makes the user the owner of a path.
    pub(crate) fn chown(&self, path: &Path) -> io::Result<()> {
        match self.ids {
            Some((uid, gid)) => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Makes the user the owner of an open file.
    pub(crate) fn chown_file(&self, file: impl std::os::fd::AsFd) -> io::Result<()> {
        match self.ids {
            Some((uid, gid)) => std::os::unix::fs::fchown(file, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }

    /// Resolves a client's path to an absolute one: relative paths, `~` and the empty path start at the user's home.
    pub(crate) fn resolve(&self, path: &str) -> Result<PathBuf, Refused> {
        let below_home = match path.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
            Some(_) => return Err(Refused::invalid(format!("`{path}`: only `~` alone stands for a home"))),
            None => path,
        };
        if path.contains('\0') {
            return Err(Refused::invalid("a path cannot contain a zero byte"));
        }
        Ok(clean(&self.home.join(below_home)))
    }

    /// Resolves a working directory, by default the home. It must exist, and the user must be able to enter it.
    pub(crate) fn resolve_cwd(&self, cwd: Option<&str>) -> Result<PathBuf, Refused> {
        let path = self.resolve(cwd.unwrap_or_default())?;
        match self.enter(&path) {
            Ok(()) => Ok(path),
            Err(err) => {
                let reason = match err.kind() {
                    io::ErrorKind::NotFound => "does not exist".to_owned(),
                    io::ErrorKind::NotADirectory => "is not a directory".to_owned(),
                    _ => format!("cannot be entered by '{}': {err}", self.name),
                };
                Err(Refused::invalid(format!("cwd '{}' {reason}", path.display())))
            }
        }
    }
}

/// Makes the calling thread root again when dropped.
struct RootAgain;

impl Drop for RootAgain {
    fn drop(&mut self) {
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, None).expect("root is still the saved user");
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, None).expect("root may change its group");
    }
}

/// Whether a user namespace contains a uid. Each line of `map` is `FIRST OUTSIDE COUNT`.
fn is_mapped(map: &str, uid: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(0_u64));
        let (first, count) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
        (first..first + count).contains(&uid.into())
    })
}

/// Returns `passwd` with the account's uid replaced, and the account's new line alone.
fn with_uid(passwd: &str, name: &str, uid: u32) -> (String, String) {
    let mut own = String::new();
    let mut all = String::new();
    for line in passwd.lines() {
        let mut fields: Vec<_> = line.split(':').collect();
        let number = uid.to_string();
        let is_own = fields.len() > 2 && fields[0] == name;
        if is_own {
            fields[2] = &number;
        }
        let line = fields.join(":") + "\n";
        all += &line;
        if is_own {
            own += &line;
        }
    }
    (all, own)
}

/// Removes `.`, `..` and doubled slashes from a path by its text alone, without following links.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// The accounts, and the environment that processes of all accounts get.
#[derive(Debug, Clone)]
pub(crate) struct Users {
    /// The account of requests that name none.
    pub(crate) default: User,
    environment: Arc<RwLock<BTreeMap<String, String>>>,
}

impl Users {
    pub(crate) fn new(default: User) -> Self {
        Self { default, environment: Arc::default() }
    }

    /// The account of this name.
    pub(crate) fn get(&self, name: Option<&str>) -> Result<User, Refused> {
        let Some(name) = name.filter(|name| *name != self.default.name) else { return Ok(self.default.clone()) };
        // An agent that is not root can only act for its own account.
        let user = if self.default.ids.is_some() { User::named(name).ok().flatten() } else { None };
        user.map(|user| User { confined: self.default.confined, ..user })
            .ok_or_else(|| Refused::new(Code::Unauthenticated, format!("invalid username: '{name}'")))
    }

    /// Replaces the environment of the sandbox.
    pub(crate) fn set_environment(&self, environment: BTreeMap<String, String>) {
        *self.environment.write().unwrap_or_else(PoisonError::into_inner) = environment;
    }

    /// The variables of the sandbox as they are now.
    pub(crate) fn sandbox_environment(&self) -> BTreeMap<String, String> {
        self.environment.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The variables, added to the image's environment, of a process that `user` starts. `own` are the process's own
    /// variables, which override the others.
    pub(crate) fn environment(&self, user: &User, own: &BTreeMap<String, String>) -> Vec<(String, String)> {
        let home = user.home.to_string_lossy().into_owned();
        let account = [("HOME", &home), ("USER", &user.name), ("LOGNAME", &user.name)];
        let account = account.into_iter().map(|(name, value)| (name.to_owned(), value.clone()));
        account.chain(self.sandbox_environment()).chain(own.clone()).collect()
    }
}

/// The names of all uids and gids.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Reads the current names.
    pub(crate) fn read() -> Self {
        let mut users = names_in(PASSWD);
        users.extend(names_in(OWN_PASSWD));
        Self { users, groups: names_in(GROUP) }
    }

    /// The name of an account, or its uid if it has none.
    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// The name of a group, or its gid if it has none.
    pub(crate) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

fn names_in(file: &str) -> HashMap<u32, String> {
    let text = std::fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User { name: "user".into(), ids: None, home: "/home/user".into(), confined: true }
    }

    #[test]
    fn the_account_is_read_from_passwd() {
        let user = User::from_passwd("user:x:1000:1001::/home/user:/bin/bash").expect("a user");
        assert_eq!((user.ids, user.home), (Some((1000, 1001)), PathBuf::from("/home/user")));
        assert!(User::from_passwd("user:x:many:0").is_none());
        assert!(User::from_passwd("").is_none());
    }

    #[test]
    fn a_user_namespace_has_the_uids_of_its_map() {
        let host = "         0          0 4294967295\n";
        assert!(is_mapped(host, 1_048_576));
        let mapped = "         0     100000      1000\n      5000     200000       10\n";
        let found = [0, 999, 1000, 5000, 5009, 5010].map(|uid| is_mapped(mapped, uid));
        assert_eq!(found, [true, true, false, true, true, false]);
        assert!(!is_mapped("", 0));
    }

    #[test]
    fn an_account_gets_another_uid_and_the_others_stay() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1001::/home/user:/bin/bash\nuser2:x:1:1::/:/bin/sh\n";
        let (all, own) = with_uid(passwd, "user", 1_234_567);
        assert_eq!(all, passwd.replace("1000", "1234567"));
        assert_eq!(own, "user:x:1234567:1001::/home/user:/bin/bash\n");
    }

    #[test]
    fn paths_start_at_the_home_and_are_cleaned() {
        let resolved = |path: &str| user().resolve(path).map(|path| path.display().to_string()).map_err(|_| ());
        assert_eq!(resolved(""), Ok("/home/user".into()));
        assert_eq!(resolved("~"), Ok("/home/user".into()));
        assert_eq!(resolved("~/a//b/./c/"), Ok("/home/user/a/b/c".into()));
        assert_eq!(resolved("a/../b"), Ok("/home/user/b".into()));
        assert_eq!(resolved("../../../etc"), Ok("/etc".into()));
        assert_eq!(resolved("/tmp/../x"), Ok("/x".into()));
        assert_eq!(resolved("~root"), Err(()));
        assert_eq!(resolved("a\0b"), Err(()));
    }

    #[test]
    fn a_directory_that_the_user_may_not_enter_is_no_working_directory() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_str().expect("text");
        // Not even its owner may enter it; root may, but root does not enter it for the user.
        let ids = rustix::process::geteuid().is_root().then_some((65_534, 65_534));
        let user = User { ids, confined: false, ..user() };
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o000)).expect("a change");
        let refused = user.resolve_cwd(Some(path)).expect_err("a refusal").0;
        assert_eq!(refused.code, Code::InvalidArgument);
        assert!(refused.message.starts_with(&format!("cwd '{path}' cannot be entered by 'user': ")), "{refused:?}");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o711)).expect("a change");
        assert_eq!(user.resolve_cwd(Some(path)).expect("a directory"), PathBuf::from(path));
    }

    #[test]
    fn later_environments_win() {
        let users = Users::new(user());
        users.set_environment([("A", "sandbox"), ("HOME", "/elsewhere")].map(|(k, v)| (k.into(), v.into())).into());
        let own = [("A".to_owned(), "own".to_owned())].into();
        let environment: HashMap<_, _> = users.environment(&user(), &own).into_iter().collect();
        assert_eq!(environment["A"], "own");
        assert_eq!(environment["HOME"], "/elsewhere");
        assert_eq!(environment["LOGNAME"], "user");
    }

    #[test]
    fn an_unknown_account_is_refused_by_name() {
        let refused = Users::new(user()).get(Some("nobody-here")).expect_err("a refusal");
        assert_eq!(
            refused.0,
            crate::protocol::Refusal {
                code: Code::Unauthenticated,
                message: "invalid username: 'nobody-here'".to_owned()
            }
        );
    }
}
