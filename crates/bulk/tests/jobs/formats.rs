//! Every format in and out.

use crate::support::{Scratch, Setting, job, numbered, parquet, texts};
use std::collections::BTreeSet;

#[test]
fn every_format_that_is_written_is_read_again() {
    let scratch = Scratch::new("formats");
    let setting = Setting::new();
    let input = scratch.write("in.jsonl", numbered(1000));
    let digests = |file: &str| texts(&parquet(&scratch.path(file)), "again");
    let mut all = BTreeSet::new();
    for ending in ["parquet", "jsonl", "csv", "tsv", "arrow"] {
        let mut first = job(&input, &["hash(id) as h"], &scratch.uri(&format!("a.{ending}")));
        first.run.split.rows = 130;
        assert!(setting.run(&first).unwrap().complete);
        let mut second = job(
            &scratch.uri(&format!("a.{ending}")),
            &["hash(h, text) as again"],
            &scratch.uri(&format!("b-{ending}.parquet")),
        );
        second.run.split.rows = 77;
        second.input.columns = Some(vec!["text".to_owned()]);
        let report = setting.run(&second).unwrap();
        assert_eq!((report.status.rows, report.status.errors), (1000, 0), "{ending}");
        let own = digests(&format!("b-{ending}.parquet"));
        assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), 1000);
        all.insert(own);
        let batch = parquet(&scratch.path(&format!("b-{ending}.parquet")));
        assert_eq!(texts(&batch, "text")[999], "row 999", "{ending}");
        assert_eq!(
            batch.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(),
            ["text", "again", "_error"]
        );
    }
    assert_eq!(all.len(), 1, "all formats hold the same rows");
}

#[test]
fn a_folder_has_a_part_for_each_split_and_a_manifest() {
    let scratch = Scratch::new("folder");
    let setting = Setting::new();
    scratch.write("in/a.csv", "id,text\n1,x\n2,y\n");
    scratch.write("in/b.csv", "id,text\r\n3,\"z\nz\"\r\n");
    scratch.write("in/.hidden.csv", "nothing");
    let report = setting.run(&job(&scratch.uri("in"), &["hash(text)"], &scratch.uri("out/"))).unwrap();
    assert!(report.complete);
    let manifest = std::fs::read_to_string(scratch.path("out/_MANIFEST.json")).unwrap();
    let manifest: kun_bulk::Manifest = serde_json::from_str(&manifest).unwrap();
    assert_eq!((manifest.rows, manifest.parts.len()), (3, 2));
    assert!(scratch.path("out/_SUCCESS").exists());
    let second = parquet(&scratch.path("out").join(&manifest.parts[1].part));
    assert_eq!(texts(&second, "text"), ["z\nz"]);
    // The folder of a job is an input like any other: its state is left out.
    let again = setting.run(&job(&scratch.uri("out"), &["hash(id) as i"], &scratch.uri("again.jsonl")));
    let error = again.unwrap_err().to_string();
    assert!(error.contains("_error"), "{error}");
}

#[test]
fn files_are_rows() {
    let scratch = Scratch::new("files");
    let setting = Setting::new();
    scratch.write("in/a.txt", "alpha");
    scratch.write("in/sub/b.md", "beta");
    scratch.write("in/c.txt", [0xff, 0xfe]);
    let report =
        setting.run(&job(&scratch.uri("in"), &["checked(text) as n"], &scratch.uri("out.parquet"))).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (3, 1));
    let batch = parquet(&scratch.path("out.parquet"));
    assert_eq!(texts(&batch, "n"), ["5 bytes", "-", "4 bytes"]);
    assert!(texts(&batch, "_error")[1].contains("no UTF-8"));
    assert!(batch.column_by_name("text").is_none() && batch.column_by_name("size").is_some());
}

#[test]
fn an_input_without_rows_gives_an_output_without_rows() {
    let scratch = Scratch::new("empty");
    let setting = Setting::new();
    let input = scratch.write("in.csv", "id,text\n");
    for ending in ["parquet", "jsonl", "csv", "arrow"] {
        let output = format!("out.{ending}");
        let report = setting.run(&job(&input, &["hash(id)"], &scratch.uri(&output))).unwrap();
        assert!(report.complete && report.status.rows == 0);
        assert!(scratch.path(&output).exists(), "{ending}");
    }
    let columns = parquet(&scratch.path("out.parquet")).schema();
    assert_eq!(columns.fields().len(), 4);
}
