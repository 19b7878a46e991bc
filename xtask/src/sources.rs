//! The tests that the sources have, read from their text: fast enough for `cargo xtask check`,
//! which builds none.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::command::root;

/// All files below a folder that have this extension.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|it| it == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The names of the core's unit tests, as `--list` has them: `os::process::tests::a_name`.
pub fn unit_tests() -> Result<BTreeSet<String>> {
    let folder = root().join("crates/semlock/src");
    let mut names = BTreeSet::new();
    for path in files(&folder, "rs")? {
        let module = path.strip_prefix(&folder)?.with_extension("");
        let parts = module.iter().filter_map(|part| part.to_str());
        let module: Vec<_> = parts.filter(|part| !matches!(*part, "mod" | "lib")).collect();
        let source = fs::read_to_string(&path)?;
        names.extend(tests_in(&source).map(|name| [&module[..], &[&*name]].concat().join("::")));
    }
    Ok(names)
}

/// The names of the tests of a test program that is one file.
pub fn tests_of(program: &str) -> Result<BTreeSet<String>> {
    let path = root().join("crates/semlock/tests").join(program).with_extension("rs");
    Ok(tests_in(&fs::read_to_string(path)?).collect())
}

/// The functions of a Python file whose names pytest takes for a test's.
pub fn pytests_in(file: &str) -> Result<BTreeSet<String>> {
    let path = root().join("tests").join(file);
    let source = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let functions = source.lines().filter_map(|line| line.strip_prefix("def "));
    let names = functions.filter_map(|rest| rest.split('(').next());
    Ok(names.filter(|name| name.starts_with("test_")).map(str::to_owned).collect())
}

/// Each `#[test]`, after the module in the file that it stands in.
fn tests_in(source: &str) -> impl Iterator<Item = String> {
    let (mut module, mut is_test) = (String::new(), false);
    source.lines().filter_map(move |line| {
        let words = line.trim().trim_start_matches("pub ");
        if let Some(name) = words.strip_prefix("mod ").and_then(|it| it.strip_suffix(" {")) {
            module = format!("{name}::");
        }
        is_test |= words == "#[test]";
        let name = words.strip_prefix("fn ")?.split(['(', '<']).next()?;
        std::mem::take(&mut is_test).then(|| format!("{module}{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_with_the_module_that_it_stands_in() {
        let source = concat!(
            "fn no_test() {}\n#[test]\nfn outside() {}\nmod inner {\n    fn help() {}\n",
            "    #[test]\n    #[cfg(unix)]\n    fn inside() {\n",
        );
        assert_eq!(tests_in(source).collect::<Vec<_>>(), ["outside", "inner::inside"]);
    }
}
