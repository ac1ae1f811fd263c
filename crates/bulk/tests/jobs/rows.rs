//! Rows that fail, rows that repeat, rows that come later.

use crate::support::{Scratch, Setting, job, parquet, texts};
use kun_bulk::job::Format;

#[test]
fn each_bad_row_has_its_reason_and_the_others_are_done() {
    let scratch = Scratch::new("bad");
    let setting = Setting::new();
    let deep = format!("{{\"text\": {}1{}}}", "[".repeat(500), "]".repeat(500));
    let long = format!("{{\"text\": \"{}\"}}", "x".repeat(17 << 20));
    let kinds: Vec<(&[u8], &str)> = vec![
        (b"{", "no JSON"),
        (b"nonsense", "no JSON"),
        (b"[1, 2]", "no JSON object"),
        (b"\"text\"", "no JSON object"),
        (b"{\"text\": 5}", "a text is wanted"),
        (b"{\"text\": {\"a\": 1}}", "a text is wanted"),
        (b"{\"text\": true}", "a text is wanted"),
        (b"{\"text\": \"a\"} {}", "no JSON"),
        (b"{\"text\": \"\xff\"}", "no UTF-8"),
        (b"\xff\xfe\x00", "no UTF-8"),
        (b"{\"text\": \"\\ud800\"}", "no JSON"),
        (b"{\"text\": 1e999}", ""),
        (deep.as_bytes(), ""),
        (long.as_bytes(), "more than"),
        (b"{\"text\": null}", "NULL"),
        (b"{}", "NULL"),
        (b"{\"text\": \"bad luck\"}", "bad luck"),
        (b"{\"text\": \"panic\"}", "failed on this row"),
        (b"{\"id\": \"text\", \"text\": \"a\"}", "whole number"),
        (b"\x00", "no JSON"),
    ];
    let mut lines = Vec::new();
    for at in 0..2000 {
        match kinds.get(at / 100).filter(|_| at % 100 == 50) {
            Some((line, _)) => lines.extend_from_slice(line),
            None => lines.extend_from_slice(format!("{{\"id\": {at}, \"text\": \"row {at}\"}}").as_bytes()),
        }
        lines.push(b'\n');
    }
    let input = scratch.write("in.jsonl", lines);
    let mut bad = job(&input, &["checked(text) as n"], &scratch.uri("out.parquet"));
    bad.run.split.rows = 300;
    let report = setting.run(&bad).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (2000, kinds.len() as u64));
    let batch = parquet(&scratch.path("out.parquet"));
    let (results, errors) = (texts(&batch, "n"), texts(&batch, "_error"));
    for at in 0..2000 {
        match kinds.get(at / 100).filter(|_| at % 100 == 50) {
            Some((_, reason)) => {
                assert!(results[at] == "-" && errors[at].contains(reason), "{at}: {}", errors[at]);
            }
            None => assert_eq!(
                (results[at].as_str(), errors[at].as_str()),
                (format!("{} bytes", format!("row {at}").len()).as_str(), "-")
            ),
        }
    }
}

#[test]
fn bad_records_and_bad_files_are_rows_too() {
    let scratch = Scratch::new("bad-files");
    let setting = Setting::new();
    let mut csv = b"id,text\n1,a\n2\n3,b,c\n4,\xff\n5,e\n".to_vec();
    csv.extend_from_slice(b"6,\"never closed\n7,x\n");
    let input = scratch.write("in.csv", csv);
    let report = setting.run(&job(&input, &["checked(text) as n"], &scratch.uri("csv.parquet"))).unwrap();
    let batch = parquet(&scratch.path("csv.parquet"));
    let errors = texts(&batch, "_error");
    assert_eq!(report.status.rows as usize, errors.len());
    assert!(errors[1].contains("1 columns instead of 2") && errors[2].contains("3 columns"), "{errors:?}");
    assert!(errors[3].contains("no UTF-8") && errors[4] == "-", "{errors:?}");

    // Of three Parquet files, one is cut short and one is damaged in the middle.
    let text: String = (0..5000).map(|i| format!("{{\"text\": \"row {}\"}}\n", i * 7919 % 5000)).collect();
    let source = scratch.write("rows.jsonl", text);
    for name in ["a", "b", "c"] {
        setting
            .run(&job(&source, &["hash(text) as h"], &scratch.uri(&format!("in/{name}.parquet"))))
            .unwrap();
        std::fs::remove_dir_all(scratch.path(&format!("in/{name}.parquet.kun"))).unwrap();
    }
    let whole = std::fs::read(scratch.path("in/b.parquet")).unwrap();
    scratch.write("in/b.parquet", &whole[..whole.len() / 2]);
    let mut damaged = whole.clone();
    for byte in &mut damaged[whole.len() / 3..whole.len() / 3 + 400] {
        *byte ^= 0x5a;
    }
    scratch.write("in/c.parquet", damaged);
    let mut mapped = job(&scratch.uri("in"), &["checked(text) as n"], &scratch.uri("files.parquet"));
    mapped.input.columns = Some(vec!["text".to_owned()]);
    mapped.errors.max_rate = 1.0;
    let report = setting.run(&mapped).unwrap();
    // All rows of the first and of the third, one for the second, whose number is not known.
    assert_eq!(report.status.rows, 10_001);
    let errors = texts(&parquet(&scratch.path("files.parquet")), "_error");
    assert!(errors[..5000].iter().all(|error| error == "-"));
    assert!(errors[5000] != "-");
}

#[test]
fn what_may_pass_is_tried_again_and_what_repeats_is_computed_once() {
    let scratch = Scratch::new("again");
    let setting = Setting::new();
    let lines: String =
        (0..300).map(|i| format!("text {}{}\n", i % 10, if i % 10 == 3 { " later" } else { "" })).collect();
    let input = scratch.write("in.txt", lines);
    let mut again = job(&input, &["checked(text) as n"], &scratch.uri("out.parquet"));
    again.input.format = Some(Format::Lines);
    let report = setting.run(&again).unwrap();
    assert_eq!((report.status.rows, report.status.errors), (300, 0));
    // Ten texts, one of which is asked twice.
    assert_eq!(report.status.tokens, 11);
}

#[test]
fn a_later_function_reads_an_earlier_ones_column() {
    let scratch = Scratch::new("chain");
    let setting = Setting::new();
    let input = scratch.write("in.jsonl", "{\"text\": \"good\"}\n{\"text\": \"bad\"}\n");
    let calls = ["checked(text) as n", "hash(n) as h", "hash(text) as t"];
    setting.run(&job(&input, &calls, &scratch.uri("out.parquet"))).unwrap();
    let batch = parquet(&scratch.path("out.parquet"));
    // What fails once is told once; what does not depend on it is done.
    assert_eq!(texts(&batch, "_error"), ["-", "n: fatal: bad"]);
    assert!(texts(&batch, "h")[1] == "-" && texts(&batch, "t")[1] != "-");
}
