//! `kun image` with the tiny model of `tools/golden/diffusion.py`.

use crate::support::Scratch;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/diffusion");

fn tiny() -> String {
    format!("{DATA}/tiny")
}

fn size_of_png(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(bytes.get(..8), Some(&b"\x89PNG\r\n\x1a\n"[..]));
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn a_picture_is_drawn_and_its_seed_draws_it_again() {
    let scratch = Scratch::new();
    let model = tiny();
    let run = |more: &[&str]| {
        let args = ["image", "a red fox", "-m", &model, "--size", "48x32", "--steps", "2"];
        scratch.run(&[&args[..], more].concat()).expect(0)
    };
    let first = run(&["-o", "fox.png", "--json"]).json();
    let seed = first["pictures"][0]["seed"].as_u64().unwrap().to_string();
    assert_eq!(first["pictures"][0]["path"], "fox.png");
    let file = |name: &str| std::fs::read(scratch.path().join(name)).unwrap();
    assert_eq!(size_of_png(&file("fox.png")), (48, 32));
    let again = run(&["-o", "many.png", "-n", "2", "--seed", &seed, "-t", "1"]);
    assert!(again.stdout.contains(&format!("many-1.png  48x32, seed {seed}")), "{again:?}");
    assert!(again.stderr.contains("passes") && again.stderr.contains("of weights"), "{again:?}");
    assert!(file("many-1.png") == file("fox.png") && file("many-2.png") != file("fox.png"));
    let picture = format!("{DATA}/picture.png");
    let mask = format!("{DATA}/mask.png");
    run(&["-o", "changed.jpg", "--image", &picture, "--strength", "0.9"]);
    run(&["-o", "filled.png", "--image", &picture, "--mask", &mask]);
    assert_eq!(size_of_png(&file("filled.png")), (48, 32));
}

#[test]
fn what_cannot_be_drawn_is_said_before_it_is_tried() {
    let scratch = Scratch::new();
    let model = tiny();
    let long = "fox ".repeat(100);
    for (args, code, wanted) in [
        (vec!["a fox", "-m", &model], 2, "-o FILE"),
        (vec!["a fox", "-m", &model, "-o", "fox.txt"], 2, ".png"),
        (vec!["", "-m", &model, "-o", "fox.png"], 2, "empty"),
        (vec!["a fox", "-m", &model, "-o", "fox.png", "--size", "500x512"], 2, "no multiple of 16"),
        (vec!["a fox", "-m", &model, "-o", "fox.png", "--size", "500"], 2, "512x384"),
        (vec!["a fox", "-m", &model, "-o", "fox.png", "-n", "0"], 2, "--count"),
        (vec!["a fox", "-m", &model, "-o", "fox.png", "--mask", "m.png"], 2, "--image"),
        (vec![&long, "-m", &model, "-o", "fox.png"], 4, "102 tokens"),
        (vec!["a fox", "-m", &model, "-o", "fox.png", "--max-memory", "100k"], 4, "bytes"),
        (vec!["a fox", "-o", "fox.png"], 2, "kun pull stable-diffusion-1.5"),
    ] {
        let ran = scratch.run(&[&["image"], &args[..]].concat());
        assert_eq!(ran.code, Some(code), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(wanted), "{args:?}: {ran:?}");
        assert!(!scratch.path().join("fox.png").exists());
    }
}
