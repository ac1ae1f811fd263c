//! `kun map` and `kun jobs` over models.

use crate::support::{Ran, Scratch, shared, stories};
use crate::texts::model;
use serde_json::Value;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn output(scratch: &Scratch, name: &str) -> Vec<Value> {
    lines(&std::fs::read_to_string(scratch.path().join(name)).unwrap())
}

#[test]
fn vectors_are_those_of_embed_and_a_job_that_is_done_does_nothing() {
    let scratch = Scratch::new();
    let word = |n: usize| -> String { [n / 26, n % 26].map(|n| char::from(b'a' + n as u8)).iter().collect() };
    let texts: Vec<String> = (0..300).map(|n| format!("a {} b{}", word(n), word(n * 7 % 300))).collect();
    scratch.write("in.txt", &texts.join("\n"));
    let encoder = model(&scratch, "bert", &[]);
    let embedded = scratch.run(&["embed", "in.txt", "-m", &encoder, "--jsonl"]).expect(0);
    let call = format!("embed(text, model = '{encoder}') as v");
    let map = ["map", "in.txt", "--with", call.as_str(), "-o", "out.jsonl", "--json"];
    let report = scratch.run(&map).expect(0).json();
    assert_eq!((&report["rows"], &report["failed_rows"]), (&300.into(), &0.into()), "{report}");
    let rows = output(&scratch, "out.jsonl");
    for ((row, text), direct) in rows.iter().zip(&texts).zip(lines(&embedded.stdout)) {
        assert_eq!(row["text"], *text.as_str());
        assert_eq!(row["v"], direct["embedding"], "{text}");
    }
    assert_eq!(scratch.run(&map).expect(0).json()["was_complete"], true);
    let listed = scratch.run(&["jobs", "list", "--json"]).expect(0).json();
    assert_eq!((&listed[0]["state"], &listed[0]["rows"]), (&"done".into(), &300.into()), "{listed}");
    // The content of the model decides, not its name.
    model(&scratch, "bert", &["other"]);
    let refused = scratch.run(&map).expect(2);
    assert!(refused.stderr.contains("begun otherwise"), "{refused:?}");
    scratch.run(&["jobs", "clean", "out.jsonl"]).expect(0);
    let refused = scratch.run(&map).expect(2);
    assert!(refused.stderr.contains("no job of kun made it"), "{refused:?}");
}

#[test]
fn each_bad_text_is_an_error_and_the_exit_code_tells() {
    let scratch = Scratch::new();
    let long = "word ".repeat(5000);
    scratch.write(
        "in.jsonl",
        &format!("{{\"t\": \"good\"}}\n{{\"t\": \"{long}\"}}\n{{\"t\": \" \"}}\n{{\"t\": null}}\n{{\n"),
    );
    let call = format!("embed(t, model = '{}') as v", model(&scratch, "bert", &[]));
    let ran: Ran = scratch.run(&["map", "in.jsonl", "--with", &call, "-o", "out.jsonl"]).expect(1);
    assert!(ran.stderr.contains("4 of 5 rows failed"), "{ran:?}");
    let rows = output(&scratch, "out.jsonl");
    let says = |row: usize| rows[row]["_error"].as_str().unwrap_or_default().to_owned();
    assert!(rows[0]["v"].is_array() && rows[0]["_error"].is_null());
    for (row, words) in [(1, "tokens"), (2, "empty"), (3, "NULL"), (4, "no JSON")] {
        assert!(says(row).contains(words) && rows[row]["v"].is_null(), "{row}: {}", says(row));
    }
}

#[test]
fn pictures_are_seen_and_made_and_a_bad_one_stops_nobody() {
    let scratch = Scratch::new();
    let images = std::fs::read_dir(shared("eval/coco8/images")).unwrap().map(|entry| entry.unwrap().path());
    let mut images: Vec<_> = images.filter(|path| path.extension().is_some_and(|e| e == "jpg")).collect();
    images.sort();
    let folder = scratch.path().join("photos");
    std::fs::create_dir_all(&folder).unwrap();
    for image in images.iter().take(3) {
        std::fs::copy(image, folder.join(image.file_name().unwrap())).unwrap();
    }
    let cut = std::fs::read(&images[0]).unwrap();
    std::fs::write(folder.join("zz-cut.jpg"), &cut[..200]).unwrap();
    std::fs::write(folder.join("zz-text.png"), "no picture").unwrap();
    let call = format!("detect(image, model = '{}') as things", shared("models/detect/yolox_nano"));
    let ran =
        scratch.run(&["map", "photos", "--with", &call, "-o", "things.jsonl", "--json"]).expect(1).json();
    assert_eq!((&ran["rows"], &ran["failed_rows"]), (&5.into(), &2.into()), "{ran}");
    let rows = output(&scratch, "things.jsonl");
    let direct =
        scratch.run(&["detect", "photos", "-m", &shared("models/detect/yolox_nano"), "--jsonl"]).expect(1);
    for (row, direct) in rows.iter().zip(lines(&direct.stdout)).take(3) {
        let (things, found) = (row["things"].as_array().unwrap(), direct["detections"].as_array().unwrap());
        assert_eq!(things.len(), found.len());
        for (thing, found) in things.iter().zip(found) {
            assert_eq!(thing["label"], found["label"]);
            let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 0.02;
            assert!(
                near(&thing["x1"], &found["box"][0]) && near(&thing["score"], &found["score"]),
                "{thing} {found}"
            );
        }
    }
    assert!(rows[3]["_error"].is_string() && rows[4]["_error"].is_string());
}

#[test]
fn a_chat_model_answers_each_row_and_asks_the_same_way_again() {
    let scratch = Scratch::new();
    scratch.write("in.csv", "who,what\nLily,ball\nTom,cat\nLily,ball\n");
    let call = format!(
        "generate('Once, {{who}} had a {{what}}.', model = '{}', max_tokens = 12) as story",
        stories()
    );
    for name in ["a.jsonl", "b.jsonl"] {
        let report = scratch.run(&["map", "in.csv", "--with", &call, "-o", name, "--json"]).expect(0).json();
        assert!(report["tokens"].as_u64().unwrap() > 20, "{report}");
    }
    let rows = output(&scratch, "a.jsonl");
    assert_eq!(rows, output(&scratch, "b.jsonl"));
    assert!(rows[0]["story"].as_str().is_some_and(|story| !story.is_empty()));
    assert_eq!(rows[0]["story"], rows[2]["story"]);
    let schema = r#"{"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": false}"#;
    let call = format!(
        "generate('{{who}}?', model = '{}', max_tokens = 60, schema = '{schema}') as answer",
        stories()
    );
    scratch.run(&["map", "in.csv", "--with", &call, "-o", "c.jsonl"]).expect(0);
    assert!(output(&scratch, "c.jsonl").iter().all(|row| row["answer"]["yes"].is_boolean()));
}

#[test]
fn mistakes_and_help() {
    let scratch = Scratch::new();
    scratch.write("in.txt", "a\n");
    let functions = scratch.run(&["map", "--functions"]).expect(0).stdout;
    assert!(functions.contains("embed(text") && functions.contains("hash(column"), "{functions}");
    let wrong = scratch.run(&["map", "in.txt", "--with", "nothing(text)", "-o", "o.csv"]).expect(2);
    assert!(wrong.stderr.contains("no function `nothing`"), "{wrong:?}");
    scratch.run(&["map", "in.txt", "-o", "o.csv"]).expect(2);
    scratch.run(&["map", "gone.txt", "--with", "hash(text)", "-o", "o.csv"]).expect(2);
    let dry = scratch.run(&["map", "in.txt", "--with", "hash(text)", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(dry["sampled_rows"], 1, "{dry}");
    scratch.write("job.toml", "[input]\nuri = \"in.txt\"\n[[map]]\nfn = \"hash\"\ninput = \"text\"\nout = \"h\"\n[output]\nuri = \"out/\"\n");
    scratch.run(&["map", "job.toml", "--shard", "0/2"]).expect(0);
    scratch.run(&["map", "job.toml", "--shard", "1/2"]).expect(0);
    assert!(scratch.path().join("out/_SUCCESS").exists());
    let shown = scratch.run(&["jobs", "show", "out/"]).expect(0);
    assert!(shown.stdout.contains("1 rows"), "{shown:?}");
}

/// A block of `docs/bulk.md`: the first after `before` that is fenced as `fence` says.
fn documented(before: &str, fence: &str) -> String {
    let page = include_str!("../../../../docs/bulk.md");
    let rest = page.split_once(before).unwrap().1.split_once(fence).unwrap().1;
    rest.split_once("```").unwrap().0.to_owned()
}

/// Runs a script as one of the shards, with `kun` on the path.
fn run_shard(scratch: &Scratch, script: &str, variable: &str, index: usize) -> Ran {
    let kun = scratch.kun(&[]);
    let bin = scratch.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    if !bin.join("kun").exists() {
        std::os::unix::fs::symlink(kun.get_program(), bin.join("kun")).unwrap();
    }
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", script]).current_dir(scratch.path()).env_clear();
    shell.env("HOME", scratch.path()).env(variable, index.to_string());
    shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    Ran::from(shell.output().unwrap())
}

#[test]
fn the_documented_arrays_of_slurm_and_kubernetes_do_a_whole_job() {
    let job = "input.uri = \"in.txt\"\noutput.uri = \"OUT\"\n[[map]]\nwith = \"hash(text) as h\"\n[run]\nsplit = { rows = 5 }\n";
    let scratch = Scratch::new();
    let lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
    scratch.write("in.txt", &lines.join("\n"));
    let slurm = documented("Slurm:", "```\n");
    assert!(slurm.starts_with("#!/bin/sh\n#SBATCH --array=0-63\n"), "{slurm}");
    let yaml = documented("Kubernetes:", "```yaml\n");
    assert!(yaml.contains("completions: 64") && yaml.contains("completionMode: Indexed"), "{yaml}");
    let command = yaml.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    assert_eq!(command[..2], ["sh", "-c"]);
    let data = scratch.path().to_str().unwrap();
    for (name, script, variable) in [
        ("slurm", slurm.clone(), "SLURM_ARRAY_TASK_ID"),
        ("kubernetes", command[2].replace("/data/", &format!("{data}/")), "JOB_COMPLETION_INDEX"),
    ] {
        scratch.write("job.toml", &job.replace("OUT", &format!("{name}/")));
        for index in 0..64 {
            run_shard(&scratch, &script, variable, index).expect(0);
            let done = scratch.path().join(name).join("_SUCCESS").exists();
            assert_eq!(done, index == 63, "{name} {index}");
        }
        let manifest = std::fs::read_to_string(scratch.path().join(name).join("_MANIFEST.json")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&manifest).unwrap()["rows"], 1000);
    }
    // Whether all of it is YAML, Python tells where it has a parser.
    let parse = "import sys, yaml; assert yaml.safe_load(sys.stdin)['kind'] == 'Job'";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", parse]).stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    if let Ok(mut child) = python.spawn() {
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), yaml.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match said.contains("No module named") {
            true => eprintln!("skipped: no YAML parser in Python"),
            false => assert!(output.status.success(), "{said}"),
        }
    }
}
