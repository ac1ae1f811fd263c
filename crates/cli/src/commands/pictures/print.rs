//! Answers as words and as JSON.

use kun_engine::tasks::pixels::{Box2, Image};
use kun_engine::tasks::vision::answer::Answer;
use kun_engine::tasks::vision::{Detection, Direction};
use serde_json::{Value, json};

/// Rounded to hundredths of a pixel.
fn pixel(v: f32) -> f64 {
    (f64::from(v) * 100.0).round() / 100.0
}

/// Rounded to five digits behind the point.
fn score(v: f32) -> f64 {
    (f64::from(v) * 1e5).round() / 1e5
}

fn corners(b: &Box2) -> [f64; 4] {
    [b.x1, b.y1, b.x2, b.y2].map(pixel)
}

fn percent(score: f32) -> String {
    format!("{:.1} %", score * 100.0)
}

fn place(b: &Box2) -> String {
    format!("{:.0},{:.0} {:.0}x{:.0}", b.x1, b.y1, b.width(), b.height())
}

fn detection(d: &Detection) -> Value {
    json!({ "label": d.label, "class": d.class, "score": score(d.score), "box": corners(&d.area) })
}

/// The answer about one picture as a JSON object; boxes are `[x1, y1, x2, y2]` in pixels of the upright picture.
pub fn document(file: &str, image: &Image, answer: &Answer) -> Value {
    let mut document = json!({ "file": file, "width": image.width(), "height": image.height() });
    let mask = |mask: &kun_engine::tasks::pixels::Mask| json!({ "size": [mask.height(), mask.width()], "counts": mask.run_length_text() });
    match answer {
        Answer::Classes(classes) => {
            document["classes"] = classes
                .iter()
                .map(|c| json!({ "label": c.label, "class": c.index, "score": score(c.score) }))
                .collect();
        }
        Answer::Detections(found) => document["detections"] = found.iter().map(detection).collect(),
        Answer::Instances(found) => {
            document["instances"] = found
                .iter()
                .map(|instance| {
                    let mut value = detection(&instance.detection);
                    value["pixels"] = json!(instance.mask.area());
                    value["mask"] = mask(&instance.mask);
                    value
                })
                .collect();
        }
        Answer::Segments { map, labels } => {
            let all = (map.width * map.height).max(1) as f64;
            document["segments"] = map
                .areas()
                .into_iter()
                .map(|(class, area)| {
                    let of_class = map.mask(class);
                    json!({
                        "label": labels.get(class),
                        "class": class,
                        "pixels": area,
                        "share": ((area as f64 / all) * 1e5).round() / 1e5,
                        "box": of_class.bounds().map(|b| corners(&b)),
                        "mask": mask(&of_class),
                    })
                })
                .collect();
        }
        Answer::Depth(depth) => {
            let (low, high) = depth.map.range();
            let larger = match depth.direction {
                Direction::Farther => "farther",
                Direction::Nearer => "nearer",
            };
            document["depth"] = json!({ "min": low, "max": high, "larger_is": larger });
        }
        Answer::People(people) => {
            document["people"] = people
                .iter()
                .map(|person| {
                    let points: Vec<Value> = person
                        .points
                        .iter()
                        .map(|p| json!({ "name": p.name, "x": pixel(p.x), "y": pixel(p.y), "score": score(p.score) }))
                        .collect();
                    json!({ "score": score(person.score), "box": person.area.map(|b| corners(&b)), "points": points })
                })
                .collect();
        }
        Answer::Faces(faces) => {
            document["faces"] = faces
                .iter()
                .map(|face| {
                    let landmarks: Vec<[f64; 2]> =
                        face.landmarks.iter().map(|&(x, y)| [pixel(x), pixel(y)]).collect();
                    json!({ "score": score(face.score), "box": corners(&face.area), "landmarks": landmarks })
                })
                .collect();
        }
        Answer::Page(page) => {
            document["text"] = json!(page.text());
            let mut lines = Vec::new();
            for (block, block_lines) in page.blocks.iter().enumerate() {
                for line in block_lines {
                    let quad: Vec<[f64; 2]> =
                        line.quad.0.iter().map(|&(x, y)| [pixel(x), pixel(y)]).collect();
                    lines.push(json!({ "text": line.text, "score": score(line.score), "block": block, "quad": quad }));
                }
            }
            document["lines"] = json!(lines);
        }
        Answer::Vector(vector) => document["embedding"] = json!(vector),
        Answer::Picture(picture) => {
            document["result"] = json!({ "width": picture.width(), "height": picture.height() });
        }
        _ => {}
    }
    document
}

/// The answer in words, a line each.
pub fn words(answer: &Answer, markdown: bool) -> Vec<String> {
    match answer {
        Answer::Classes(classes) => {
            classes.iter().map(|c| format!("{:>7}  {}", percent(c.score), c.label)).collect()
        }
        Answer::Detections(found) => found.iter().map(detection_words).collect(),
        Answer::Instances(found) => found
            .iter()
            .map(|i| format!("{}, {} pixels", detection_words(&i.detection), i.mask.area()))
            .collect(),
        Answer::Segments { map, labels } => {
            let all = (map.width * map.height).max(1) as f32;
            let name = |class: usize| labels.get(class).cloned().unwrap_or_else(|| class.to_string());
            map.areas()
                .iter()
                .map(|&(c, area)| format!("{:>7}  {}", percent(area as f32 / all), name(c)))
                .collect()
        }
        Answer::Depth(depth) => {
            let (low, high) = depth.map.range();
            let larger = if depth.direction == Direction::Farther { "farther" } else { "nearer" };
            vec![format!("{low:.3} to {high:.3}, larger is {larger}")]
        }
        Answer::People(people) => people
            .iter()
            .map(|person| {
                let seen = person.points.iter().filter(|p| p.score >= 0.2).count();
                format!(
                    "{:>7}  person, {seen} of {} key points seen",
                    percent(person.score),
                    person.points.len()
                )
            })
            .collect(),
        Answer::Faces(faces) => {
            faces.iter().map(|f| format!("{:>7}  face at {}", percent(f.score), place(&f.area))).collect()
        }
        Answer::Page(page) => {
            let text = if markdown { page.markdown() } else { page.text() };
            text.lines().map(str::to_owned).collect()
        }
        Answer::Picture(picture) => vec![format!("{}x{} pixels", picture.width(), picture.height())],
        _ => Vec::new(),
    }
}

fn detection_words(d: &Detection) -> String {
    format!("{:>7}  {} at {}", percent(d.score), d.label, place(&d.area))
}
