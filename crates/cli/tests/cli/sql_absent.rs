//! `kun sql` in a build without it.

use crate::support::Scratch;

#[test]
fn a_build_without_sql_names_the_one_that_has_it() {
    let scratch = Scratch::new();
    scratch.write("in.csv", "a\n1\n");
    for args in [
        ["sql", "SELECT 1"].as_slice(),
        &["map", "in.csv", "--where", "a > 0", "--with", "hash(a)", "-o", "out.csv"],
        &["map", "--query", "SELECT 1 AS a", "--with", "hash(a)", "-o", "out.csv"],
    ] {
        let ran = scratch.run(args).expect(2);
        assert!(ran.stderr.contains("cargo build --release --features sql"), "{ran:?}");
    }
}
