//! `kun sql`, and SQL in `kun map`.

use crate::support::Scratch;
use crate::texts::model;

fn filled() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("people.csv", "id,Name,age\n1,Ann,30\n2,Bob,\n3,Cid,41\n");
    scratch.write("talks.jsonl", "{\"id\": 1, \"text\": \"abc\"}\n{\"id\": 3, \"text\": \"x, \\\"y\\\"\"}\n{\"id\": 4, \"text\": null}\n");
    scratch
}

#[test]
fn sql_answers_in_csv_json_and_files() {
    let scratch = filled();
    let query = "SELECT name, text FROM 'people.csv' JOIN 'talks.jsonl' USING (id) ORDER BY age";
    assert_eq!(scratch.run(&["sql", query]).expect(0).stdout, "Name,text\nAnn,abc\nCid,\"x, \"\"y\"\"\"\n");
    let rows = scratch.run(&["sql", query, "--json"]).expect(0).json();
    assert_eq!(
        rows,
        serde_json::json!([{ "Name": "Ann", "text": "abc" }, { "Name": "Cid", "text": "x, \"y\"" }])
    );
    let lines = scratch.run(&["sql", "SELECT 1 AS a; SELECT 2 AS b", "--jsonl"]).expect(0).stdout;
    assert_eq!(lines, "{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(scratch.run(&["sql", "SELECT 1 AS a WHERE false", "--json"]).expect(0).stdout, "[]\n");
    let saved = scratch.run(&["sql", query, "-o", "out.parquet"]).expect(0);
    assert!(saved.stdout.is_empty() && saved.stderr.contains("out.parquet: 2 rows"), "{saved:?}");
    scratch.write("ask.sql", "-- how many\nSELECT count(*) AS n FROM 'out.parquet';\n");
    for args in [["sql", "ask.sql"].as_slice(), &["sql", "-f", "ask.sql"]] {
        assert_eq!(scratch.run(args).expect(0).stdout, "n\n2\n");
    }
    assert_eq!(scratch.run_with_stdin(&["sql"], b"SELECT 2 AS n").expect(0).stdout, "n\n2\n");
    scratch.run(&["sql", "COPY (SELECT 7 AS x) TO 'seven/'"]).expect(0);
    assert_eq!(scratch.run(&["sql", "SELECT x FROM 'seven/'"]).expect(0).stdout, "x\n7\n");
}

#[test]
fn sql_asks_models_and_tells_rows_that_fail() {
    let scratch = filled();
    let model = model(&scratch, "bert", &[]);
    let call = format!("embed(text, model = '{model}')");
    let same = format!("SELECT id, cosine({call}, {call}) > 0.999 AS same FROM 'talks.jsonl' ORDER BY id");
    assert_eq!(scratch.run(&["sql", &same]).expect(0).stdout, "id,same\n1,true\n3,true\n4,\n");
    let long = format!(
        "SELECT embed(repeat(text || ' ', 9000), model = '{model}') IS NULL AS gone FROM 'talks.jsonl' WHERE id = 1"
    );
    let ran = scratch.run(&["sql", &long]).expect(1);
    assert!(ran.stdout == "gone\ntrue\n" && ran.stderr.contains("rows without a result: 1;"), "{ran:?}");
    let plan = scratch.run(&["sql", &format!("EXPLAIN {same}")]).expect(0).stdout;
    assert!(plan.contains("Infer"), "{plan}");
}

#[test]
fn sql_mistakes_are_told() {
    let scratch = filled();
    for (query, says) in [
        ("SELEC 1", "Expected"),
        ("SELECT nothing FROM 'people.csv'", "nothing"),
        ("SELECT * FROM people", "single quotes"),
        ("SELECT * FROM 'gone.csv'", "no such file"),
        ("", "no statement"),
    ] {
        let ran = scratch.run(&["sql", query]).expect(2);
        assert!(ran.stderr.contains(says) && ran.stdout.is_empty(), "{ran:?}");
    }
    scratch.run(&["sql", "SELECT 1", "-o", "x.parquet", "--json"]).expect(2);
    scratch.run(&["sql", "SELECT 1; SELECT 2", "-o", "x.parquet"]).expect(2);
    scratch.run(&["sql", "SELECT 1", "-o", "x.xlsx"]).expect(2);
}

#[test]
fn sql_conditions_and_queries_are_inputs_of_map() {
    let scratch = filled();
    let map = [
        "map",
        "people.csv",
        "--where",
        "age > 35",
        "--with",
        "hash(Name) as h",
        "-o",
        "old.jsonl",
        "--json",
    ];
    let report = scratch.run(&map).expect(0).json();
    assert_eq!((&report["rows"], &report["dropped_rows"]), (&1.into(), &2.into()), "{report}");
    let query = "SELECT p.Name, t.text FROM 'people.csv' p JOIN 'talks.jsonl' t USING (id)";
    let map = ["map", "--query", query, "--with", "hash(text) as h", "-o", "joined.csv", "--json"];
    assert_eq!(scratch.run(&map).expect(0).json()["rows"], 2);
    assert_eq!(scratch.run(&map).expect(0).json()["was_complete"], true);
    let dry = ["map", "--query", query, "--with", "hash(text) as h", "--dry-run", "--json"];
    assert_eq!(scratch.run(&dry).expect(0).json()["sampled_rows"], 2);
    let wrong = scratch
        .run(&["map", "people.csv", "--where", "agee > 1", "--with", "hash(Name) as h", "-o", "w.csv"])
        .expect(2);
    assert!(wrong.stderr.contains("agee") && !scratch.path().join("w.csv.kun").exists(), "{wrong:?}");
}
