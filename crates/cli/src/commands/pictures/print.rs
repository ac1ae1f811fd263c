//! Answers as words and as JSON.

use kun_engine::tasks::pixels::{Box2, Image};
use kun_engine::tasks::vision::answer::Answer;
use kun_engine::tasks::vision::{self, Detection, Direction};
use serde_json::{Value, json};

fn percent(score: f32) -> String {
    format!("{:.1} %", score * 100.0)
}

fn place(b: &Box2) -> String {
    format!("{:.0},{:.0} {:.0}x{:.0}", b.x1, b.y1, b.width(), b.height())
}

/// The answer about one picture as a JSON object.
pub fn document(file: &str, image: &Image, answer: &Answer) -> Value {
    let mut document = json!({ "file": file });
    if let (Some(document), Value::Object(rest)) = (document.as_object_mut(), vision::document(image, answer))
    {
        document.extend(rest);
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
