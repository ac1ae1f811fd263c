//! Answers as JSON.

use super::answer::Answer;
use super::{Detection, Direction};
use crate::pixels::{Box2, Image, Mask};
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

fn detection(d: &Detection) -> Value {
    json!({ "label": d.label, "class": d.class, "score": score(d.score), "box": corners(&d.area) })
}

/// The answer about one picture as a JSON object; boxes are `[x1, y1, x2, y2]` in pixels of the upright picture.
pub fn document(image: &Image, answer: &Answer) -> Value {
    let mut document = json!({ "width": image.width(), "height": image.height() });
    let mask =
        |mask: &Mask| json!({ "size": [mask.height(), mask.width()], "counts": mask.run_length_text() });
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
    }
    document
}
