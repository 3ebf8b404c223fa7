//! No two files of the program import each other, directly or through others.
//!
//! A folder's `mod.rs` and the files below it count as one module: a file may import from the modules that contain it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::repository::{files, has_end, root};

trials![no_files_import_each_other, a_circle_is_found];

/// A module's path in the crate, such as `http/e2b`; the path of the crate itself is empty.
type Module = Vec<String>;

async fn no_files_import_each_other() {
    let mut sources = BTreeMap::new();
    for path in files(&root().join("src")).into_iter().filter(|path| has_end(path, "rs")) {
        let name = path.strip_prefix(root().join("src")).expect("it is below").with_extension("").display().to_string();
        let mut module: Module = name.split('/').map(str::to_owned).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        sources.insert(module, fs::read_to_string(&path).expect("a source"));
    }
    let imports = imports(&sources);
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 200, "the imports were not found");
    assert_eq!(circle(&imports), None);
}

async fn a_circle_is_found() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    let sources = |c: &str| {
        let texts = [
            ("a", "mod b;\nmod c;\nuse b::One;"),
            ("a/b", "use std::fmt;\nuse super::{c::{Two, three}, Other};"),
            ("a/c", c),
            ("d", "use crate::a::b::One;"),
        ];
        texts.into_iter().map(|(path, text)| (module(path), text.to_owned())).collect()
    };
    assert_eq!(circle(&imports(&sources("use super::Other;"))), None);
    let found = circle(&imports(&sources("    pub use crate::d;"))).expect("a circle");
    let found: BTreeSet<_> = found.into_iter().collect();
    assert_eq!(found, ["a/b", "a/c", "d"].map(module).into());
}

/// The modules from which each module imports, without those that contain it.
fn imports(sources: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut imports = BTreeMap::new();
    for (module, text) in sources {
        let program = text.split("#[cfg(test)]\nmod tests").next().expect("a first part");
        let used = statements(program).iter().flat_map(|tree| paths(tree)).collect::<Vec<_>>();
        let found = used.iter().filter_map(|path| imported(sources, module, path));
        imports.insert(module.clone(), found.filter(|found| !module.starts_with(found)).collect());
    }
    imports
}

/// The trees of all `use` statements.
fn statements(program: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = program.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        let statement = match line.strip_prefix("pub") {
            Some(rest) => rest.split_once("use ").filter(|(before, _)| !before.contains("fn ")).map(|(_, tree)| tree),
            None => line.strip_prefix("use "),
        };
        let Some(start) = statement else { continue };
        let mut tree = start.to_owned();
        while !tree.contains(';') {
            let Some(line) = lines.next() else { break };
            tree.push_str(line.trim());
        }
        found.push(tree.split(';').next().unwrap_or_default().to_owned());
    }
    found
}

/// The paths of a tree such as `a::{b, c::{d, e}}`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inside)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inside = inside.rsplit_once('}').map_or(inside, |(inside, _)| inside);
    let (mut depth, mut branches) = (0, vec![String::new()]);
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                branches.push(String::new());
                continue;
            }
            _ => {}
        }
        branches.last_mut().expect("one").push(letter);
    }
    let branches = branches.iter().map(|branch| branch.trim()).filter(|branch| !branch.is_empty());
    branches.flat_map(paths).map(|path| format!("{}{path}", before.trim())).collect()
}

/// The module that a path of a `use` statement in `module` names, if it belongs to the crate.
fn imported(sources: &BTreeMap<Module, String>, module: &Module, path: &str) -> Option<Module> {
    let mut parts = path.split("::").peekable();
    let mut at = module.clone();
    match *parts.peek()? {
        "crate" | "oncebox" => {
            parts.next();
            at.clear();
        }
        "self" => drop(parts.next()),
        _ => {
            while parts.next_if_eq(&"super").is_some() {
                at.pop();
            }
        }
    }
    let mut found = None;
    for part in parts {
        at.push(part.to_owned());
        if !sources.contains_key(&at) {
            break;
        }
        found = Some(at.clone());
    }
    found
}

/// The modules of a circle, if there is one.
fn circle(imports: &BTreeMap<Module, BTreeSet<Module>>) -> Option<Vec<Module>> {
    fn walk(
        imports: &BTreeMap<Module, BTreeSet<Module>>,
        at: &Module,
        way: &mut Vec<Module>,
        done: &mut BTreeSet<Module>,
    ) -> Option<Vec<Module>> {
        if let Some(begin) = way.iter().position(|module| module == at) {
            return Some(way[begin..].to_vec());
        }
        if done.contains(at) {
            return None;
        }
        way.push(at.clone());
        let found = imports.get(at).into_iter().flatten().find_map(|next| walk(imports, next, way, done));
        way.pop();
        done.insert(at.clone());
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| walk(imports, module, &mut Vec::new(), &mut done))
}
