//! Checks that every test named in docs/security.md exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "ipc/src", "tests"] {
        collect(&root.join(folder), &mut tests);
    }
    let page = fs::read_to_string(root.join("docs/security.md")).expect("the page");
    let named: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(|word| is_test_name(word)).collect();
    let missing: Vec<_> = named.iter().filter(|name| !tests.contains(**name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that do not exist: {missing:?}");
    assert!(named.len() > 50, "only {} tests were recognised on the page", named.len());
}

/// Returns true for lower-case code with an underscore, which is a test's name on that page.
fn is_test_name(word: &str) -> bool {
    word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Collects the names of all functions that follow a `#[test]`.
fn collect(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("listed").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("readable");
            let after = text.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split_once('('));
            tests.extend(after.map(|(name, _)| name.to_owned()));
        }
    }
}
