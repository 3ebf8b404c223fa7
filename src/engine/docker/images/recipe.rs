//! The folders that images are built from: their dependencies, their contexts for the builder, and their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::BuildError;

/// One folder below `images/`.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    /// The names of our images that its Dockerfile starts from or copies from.
    pub(super) needs: BTreeSet<String>,
    /// Whether its Dockerfile takes the Debian image as an argument.
    pub(super) takes_debian: bool,
}

/// Reads all folders that hold a Dockerfile. The result is sorted by name.
pub(super) fn read_all(images_dir: &Path) -> Result<BTreeMap<String, Recipe>, BuildError> {
    let unreadable = |path: &Path, source| BuildError::Unreadable { path: path.to_owned(), source };
    let mut recipes = BTreeMap::new();
    for entry in fs::read_dir(images_dir).map_err(|err| unreadable(images_dir, err))? {
        let dir = entry.map_err(|err| unreadable(images_dir, err))?.path();
        let dockerfile = dir.join("Dockerfile");
        let Some(name) = dir.file_name().and_then(|name| name.to_str()) else { continue };
        let text = match fs::read_to_string(&dockerfile) {
            Ok(text) => text,
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(err) => return Err(unreadable(&dockerfile, err)),
        };
        let (needs, takes_debian) = references(&text);
        recipes.insert(name.to_owned(), Recipe { name: name.to_owned(), dir, needs, takes_debian });
    }
    Ok(recipes)
}

/// Returns the names `X` in `FROM oncebox/X` and `COPY --from=oncebox/X`, and whether there is an `ARG DEBIAN`.
fn references(dockerfile: &str) -> (BTreeSet<String>, bool) {
    let mut needs = BTreeSet::new();
    let mut takes_debian = false;
    for line in dockerfile.lines() {
        let mut words = line.split_whitespace();
        let image = match words.next().map(str::to_ascii_uppercase).as_deref() {
            Some("FROM") => words.find(|word| !word.starts_with("--")),
            Some("COPY") => {
                words.take_while(|word| word.starts_with("--")).find_map(|word| word.strip_prefix("--from="))
            }
            Some("ARG") => {
                takes_debian |= words.next().is_some_and(|word| word == "DEBIAN" || word.starts_with("DEBIAN="));
                None
            }
            _ => None,
        };
        if let Some(name) = image.and_then(|image| image.strip_prefix("oncebox/")) {
            needs.insert(name.split([':', '@']).next().unwrap_or(name).to_owned());
        }
    }
    (needs, takes_debian)
}

/// The named recipes, or all if `names` is empty, and their dependencies. Each comes after its dependencies.
pub(super) fn in_order<'a>(
    recipes: &'a BTreeMap<String, Recipe>,
    names: &[String],
) -> Result<Vec<&'a Recipe>, BuildError> {
    let mut ordered = Vec::new();
    let all: Vec<&str> = if names.is_empty() {
        recipes.keys().map(String::as_str).collect()
    } else {
        names.iter().map(String::as_str).collect()
    };
    for name in all {
        visit(recipes, name, &mut Vec::new(), &mut ordered)?;
    }
    Ok(ordered)
}

fn visit<'a>(
    recipes: &'a BTreeMap<String, Recipe>,
    name: &str,
    path: &mut Vec<String>,
    ordered: &mut Vec<&'a Recipe>,
) -> Result<(), BuildError> {
    if ordered.iter().any(|recipe| recipe.name == name) {
        return Ok(());
    }
    let Some(recipe) = recipes.get(name) else {
        let known = recipes.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err(BuildError::Unknown { name: name.to_owned(), needed_by: path.last().cloned(), known });
    };
    path.push(name.to_owned());
    if path[..path.len() - 1].iter().any(|above| above == name) {
        return Err(BuildError::Circle(path.join(" -> ")));
    }
    for need in &recipe.needs {
        visit(recipes, need, path, ordered)?;
    }
    path.pop();
    ordered.push(recipe);
    Ok(())
}

/// A file in a context that is not in the image's folder.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    pub(super) executable: bool,
}

enum Entry {
    Dir,
    File { bytes: Vec<u8>, executable: bool },
    Link(PathBuf),
}

/// The folder and the extra files as a tar that depends only on names, contents and executable bits.
///
/// Other permission bits depend on the umask of the checkout, which must neither cause a build nor hide a file from
/// `user`.
pub(super) fn context(dir: &Path, extras: Vec<Extra>) -> io::Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    collect(dir, "", &ignored(dir)?, &mut entries)?;
    for Extra { path, bytes, executable } in extras {
        entries.insert(path, Entry::File { bytes, executable });
    }
    let mut tar = tar::Builder::new(Vec::new());
    for (path, entry) in &entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match entry {
            Entry::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                tar.append_data(&mut header, path, io::empty())?;
            }
            Entry::File { bytes, executable } => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(if *executable { 0o755 } else { 0o644 });
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, bytes.as_slice())?;
            }
            Entry::Link(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, target)?;
            }
        }
    }
    tar.into_inner()
}

/// The names in `.dockerignore` lines of the form `**/name`. The daemon would leave these files out as well; here they
/// are left out so that they do not change the digest. Other patterns are left to the daemon.
fn ignored(dir: &Path) -> io::Result<BTreeSet<String>> {
    let text = match fs::read_to_string(dir.join(".dockerignore")) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("**/"));
    Ok(names.filter(|name| !name.contains(['/', '*', '?', '['])).map(str::to_owned).collect())
}

fn collect(
    dir: &Path,
    prefix: &str,
    ignored: &BTreeSet<String>,
    entries: &mut BTreeMap<String, Entry>,
) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name =
            entry.file_name().into_string().map_err(|name| io::Error::other(format!("{name:?} is not UTF-8")))?;
        if ignored.contains(&name) {
            continue;
        }
        let path = format!("{prefix}{name}");
        let kind = entry.file_type()?;
        let found = if kind.is_symlink() {
            Entry::Link(fs::read_link(entry.path())?)
        } else if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), ignored, entries)?;
            Entry::Dir
        } else {
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            Entry::File { bytes: fs::read(entry.path())?, executable }
        };
        entries.insert(path, found);
    }
    Ok(())
}

/// A digest of everything that an image is made from. The image must be built again if, and only if, it changes.
pub(super) fn digest<'a>(
    context: &[u8],
    args: impl IntoIterator<Item = (&'a str, &'a str)>,
    needs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut hash = Sha256::new();
    // Each piece is preceded by its length, so that two lists of pieces never hash the same bytes.
    let mut add = |piece: &[u8]| {
        hash.update((piece.len() as u64).to_le_bytes());
        hash.update(piece);
    };
    add(context);
    for (kind, pairs) in [("arg", args.into_iter().collect::<BTreeMap<_, _>>()), ("needs", needs.into_iter().collect())]
    {
        for (key, value) in pairs {
            for piece in [kind, key, value] {
                add(piece.as_bytes());
            }
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipes(dependencies: &[(&str, &[&str])]) -> BTreeMap<String, Recipe> {
        let recipe = |name: &str, needs: &[&str]| Recipe {
            name: name.to_owned(),
            dir: PathBuf::from(name),
            needs: needs.iter().map(|name| (*name).to_owned()).collect(),
            takes_debian: false,
        };
        dependencies.iter().map(|(name, needs)| ((*name).to_owned(), recipe(name, needs))).collect()
    }

    fn ordered(recipes: &BTreeMap<String, Recipe>, names: &[&str]) -> Result<Vec<String>, BuildError> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(in_order(recipes, &names)?.iter().map(|recipe| recipe.name.clone()).collect())
    }

    #[test]
    fn a_dockerfile_names_its_dependencies() {
        let (needs, takes_debian) = references(
            "# FROM oncebox/comment\nARG DEBIAN=debian:trixie-slim\nFROM --platform=linux/amd64 oncebox/base:latest AS packages\n\
             FROM oncebox/one\nCOPY --chown=0:0 --from=oncebox/two /a \\\n  /b\nCOPY --from=packages /x /y\nCOPY a --from=oncebox/no b\n",
        );
        assert_eq!(needs.into_iter().collect::<Vec<_>>(), ["base", "one", "two"]);
        assert!(takes_debian);
        assert!(!references("ARG DEBIANS\nFROM scratch").1);
    }

    #[test]
    fn an_image_is_built_after_its_dependencies() {
        let recipes =
            recipes(&[("all", &["one", "two"]), ("base", &[]), ("one", &["base"]), ("two", &["base", "one"])]);
        assert_eq!(ordered(&recipes, &[]).unwrap(), ["base", "one", "two", "all"]);
        assert_eq!(ordered(&recipes, &["one"]).unwrap(), ["base", "one"]);
    }

    #[test]
    fn an_unknown_name_and_a_circle_are_errors() {
        let recipes = recipes(&[("one", &["two"]), ("two", &["one"]), ("three", &["gone"])]);
        assert_eq!(ordered(&recipes, &["one"]).unwrap_err().to_string(), "images need each other: one -> two -> one");
        assert_eq!(
            ordered(&recipes, &["three"]).unwrap_err().to_string(),
            "no image is named `gone`, which `three` needs; there are: one, three, two"
        );
        assert!(
            ordered(&recipes, &["four"]).unwrap_err().to_string().starts_with("no image is named `four`; there are")
        );
    }

    #[test]
    fn a_context_does_not_depend_on_the_umask_and_the_time() {
        let [first, second] = [0o600, 0o664].map(|mode| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("sub")).unwrap();
            for name in ["z", "a", "sub/m"] {
                fs::write(dir.path().join(name), name).unwrap();
                fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            let extra = Extra { path: "sub/b".to_owned(), bytes: b"extra".to_vec(), executable: true };
            context(dir.path(), vec![extra]).unwrap()
        });
        assert_eq!(first, second);
        let mut tar = tar::Archive::new(first.as_slice());
        let found: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
            })
            .collect();
        let expected = [("a", 0o644), ("sub", 0o755), ("sub/b", 0o755), ("sub/m", 0o644), ("z", 0o644)];
        assert_eq!(found, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn files_in_dockerignore_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/litter")).unwrap();
        fs::write(dir.path().join("sub/litter/file"), "").unwrap();
        let before = context(dir.path(), Vec::new()).unwrap();
        fs::write(dir.path().join(".dockerignore"), "# left behind by a run\n**/litter\n").unwrap();
        let after = context(dir.path(), Vec::new()).unwrap();
        assert!(before.windows(6).any(|piece| piece == b"litter"));
        assert!(
            !tar::Archive::new(after.as_slice()).entries().unwrap().any(|entry| entry
                .unwrap()
                .path()
                .unwrap()
                .display()
                .to_string()
                .contains("litter"))
        );
    }

    #[test]
    fn a_digest_distinguishes_context_arguments_and_dependencies() {
        let all = [
            digest(b"a", [("k", "v")], []),
            digest(b"a", [], [("k", "v")]),
            digest(b"a", [("kv", "")], []),
            digest(b"b", [("k", "v")], []),
        ];
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert_eq!(digest(b"", [("a", "1"), ("b", "2")], []), digest(b"", [("b", "2"), ("a", "1")], []));
    }
}
