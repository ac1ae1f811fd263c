//! The floor table of `ARCHITECTURE.md` against the crates' `Cargo.toml` files.
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Imports = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Rows of the table whose header is `| floor | crate | may import | .. |`: crate to what it may import.
fn allowed(page: &str) -> Imports {
    let mut rows =
        page.lines().skip_while(|line| !line.replace(' ', "").starts_with("|floor|crate|mayimport|"));
    assert!(rows.next().is_some(), "ARCHITECTURE.md has no floor table");
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).filter(|n| n != "none").collect()
    };
    rows.skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            (cells[2].trim_matches('`').to_owned(), names(cells[3]))
        })
        .collect()
}

/// What each crate imports, dev-dependencies left out; target-specific tables count.
fn imported() -> Imports {
    let mut crates = Imports::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let dir = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(dir.join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().unwrap();
        let mut imports = BTreeSet::new();
        let targets = manifest.get("target").and_then(toml::Value::as_table);
        let tables = std::iter::once(&manifest)
            .chain(targets.into_iter().flat_map(|t| t.values()).filter_map(toml::Value::as_table));
        for table in tables {
            for kind in ["dependencies", "build-dependencies"] {
                let Some(dependencies) = table.get(kind).and_then(toml::Value::as_table) else { continue };
                imports.extend(
                    dependencies.keys().filter_map(|name| name.strip_prefix("kun-")).map(str::to_owned),
                );
            }
        }
        let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
        let package = manifest["package"]["name"].as_str().unwrap();
        assert!(
            package == format!("kun-{name}") || (name == "cli" && package == "kun"),
            "folder {name}: {package}"
        );
        crates.insert(name, imports);
    }
    crates
}

/// Every way in which `crates` breaks the table.
fn violations(table: &Imports, crates: &Imports) -> Vec<String> {
    let mut found = Vec::new();
    for (name, imports) in crates {
        match table.get(name) {
            None => found.push(format!("crate `{name}` is not in the table")),
            Some(may) => {
                found.extend(
                    imports.difference(may).map(|import| format!("`{name}` may not import `{import}`")),
                );
            }
        }
    }
    found
        .extend(table.keys().filter(|n| !crates.contains_key(*n)).map(|n| format!("row `{n}` has no crate")));
    for (name, may) in table {
        found.extend(
            may.iter()
                .filter(|n| !table.contains_key(*n))
                .map(|n| format!("`{name}` may import `{n}`, which has no row")),
        );
    }
    found
}

#[test]
fn crates_import_only_what_their_floor_allows() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (table, crates) = (allowed(&page), imported());
    assert!(table.len() > 5 && crates.len() > 5, "{} rows, {} crates", table.len(), crates.len());
    assert_eq!(violations(&table, &crates), Vec::<String>::new());
}

#[test]
fn a_forbidden_import_a_missing_row_and_a_missing_crate_are_found() {
    let page = "text\n| floor | crate | may import | why |\n|---|---|---|---|\n| 0 | `a` | none | |\n| 1 | `b` | a | |\n| 1 | `gone` | a, x | |\n\n| 9 | `no` | none | |\n";
    let table = allowed(page);
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(table["b"], set(&["a"]));
    let crates = Imports::from([
        ("a".to_owned(), set(&["b"])),
        ("b".to_owned(), set(&["a"])),
        ("new".to_owned(), set(&[])),
    ]);
    assert_eq!(
        violations(&table, &crates),
        [
            "`a` may not import `b`",
            "crate `new` is not in the table",
            "row `gone` has no crate",
            "`gone` may import `x`, which has no row",
        ]
    );
}
