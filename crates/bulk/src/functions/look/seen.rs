//! What is seen in a picture, as columns. Boxes are `x1 y1 x2 y2` in pixels of the upright picture.

use arrow_schema::{DataType, Field};
use kun_engine::tasks::describe::Verb;
use kun_engine::tasks::pixels::{Box2, Mask};
use kun_engine::tasks::vision::{Answer, Detection};
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn structure(fields: &[(&str, DataType)]) -> DataType {
    DataType::Struct(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect())
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

const BOX: [(&str, DataType); 4] = [
    ("x1", DataType::Float32),
    ("y1", DataType::Float32),
    ("x2", DataType::Float32),
    ("y2", DataType::Float32),
];

const LABEL: [(&str, DataType); 3] =
    [("label", DataType::Utf8), ("class", DataType::Int32), ("score", DataType::Float32)];

/// The type of what a verb sees; `None` for pictures.
pub(super) fn data_type(verb: Verb) -> Option<DataType> {
    let mask = (
        "mask",
        structure(&[("height", DataType::Int32), ("width", DataType::Int32), ("counts", DataType::Utf8)]),
    );
    let point = [
        ("name", DataType::Utf8),
        ("x", DataType::Float32),
        ("y", DataType::Float32),
        ("score", DataType::Float32),
    ];
    Some(match verb {
        Verb::Embed => list(DataType::Float32),
        Verb::Classify => structure(&[("label", DataType::Utf8), ("score", DataType::Float32)]),
        Verb::Detect => list(structure(&[LABEL.as_slice(), &BOX].concat())),
        Verb::Segment => {
            list(structure(&[LABEL.as_slice(), &[("pixels", DataType::Int64)], &BOX, &[mask]].concat()))
        }
        Verb::Pose => list(structure(&[("score", DataType::Float32), ("points", list(structure(&point)))])),
        Verb::Faces => list(structure(
            &[
                &[("score", DataType::Float32)],
                BOX.as_slice(),
                &[("landmarks", list(structure(&point[1..3])))],
            ]
            .concat(),
        )),
        Verb::Depth | Verb::Upscale | Verb::Denoise | Verb::Enhance | Verb::Stylize | Verb::Cutout => {
            return None;
        }
    })
}

/// The type of a page that was read.
pub(super) fn page() -> DataType {
    let line = [("text", DataType::Utf8), ("score", DataType::Float32), ("block", DataType::Int32)];
    structure(&[("text", DataType::Utf8), ("lines", list(structure(&[line.as_slice(), &BOX].concat())))])
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn corners(area: &Box2) -> Map<String, Value> {
    object(json!({ "x1": area.x1, "y1": area.y1, "x2": area.x2, "y2": area.y2 }))
}

fn detection(found: &Detection) -> Map<String, Value> {
    let mut all = object(json!({ "label": found.label, "class": found.class, "score": found.score }));
    all.extend(corners(&found.area));
    all
}

fn masked(mut thing: Map<String, Value>, mask: &Mask) -> Value {
    thing.insert("pixels".to_owned(), json!(mask.area()));
    let counts = json!({ "height": mask.height(), "width": mask.width(), "counts": mask.run_length_text() });
    thing.insert("mask".to_owned(), counts);
    Value::Object(thing)
}

/// What was seen; `None` for a picture.
pub(super) fn value(answer: &Answer) -> Option<Value> {
    Some(match answer {
        Answer::Classes(classes) => {
            classes.first().map_or(Value::Null, |class| json!({ "label": class.label, "score": class.score }))
        }
        Answer::Detections(found) => found.iter().map(|found| Value::Object(detection(found))).collect(),
        Answer::Instances(found) => {
            found.iter().map(|found| masked(detection(&found.detection), &found.mask)).collect()
        }
        Answer::Segments { map, labels } => map
            .areas()
            .into_iter()
            .map(|(class, _)| {
                let mask = map.mask(class);
                let mut thing = object(json!({ "label": labels.get(class), "class": class, "score": null }));
                thing.extend(mask.bounds().as_ref().map(corners).unwrap_or_default());
                masked(thing, &mask)
            })
            .collect(),
        Answer::People(people) => people
            .iter()
            .map(|person| {
                let points = person.points.iter();
                let points: Value =
                    points.map(|p| json!({ "name": p.name, "x": p.x, "y": p.y, "score": p.score })).collect();
                json!({ "score": person.score, "points": points })
            })
            .collect(),
        Answer::Faces(faces) => faces
            .iter()
            .map(|face| {
                let mut thing = object(json!({ "score": face.score }));
                thing.extend(corners(&face.area));
                let landmarks: Value =
                    face.landmarks.iter().map(|(x, y)| json!({ "x": x, "y": y })).collect();
                thing.insert("landmarks".to_owned(), landmarks);
                Value::Object(thing)
            })
            .collect(),
        Answer::Vector(vector) => json!(vector),
        Answer::Page(page) => {
            let mut lines = Vec::new();
            for (block, own) in page.blocks.iter().enumerate() {
                for line in own {
                    let mut all = object(json!({ "text": line.text, "score": line.score, "block": block }));
                    let (xs, ys): (Vec<f32>, Vec<f32>) = line.quad.0.iter().copied().unzip();
                    let ends = |values: &[f32]| {
                        values.iter().fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(*v), high.max(*v)))
                    };
                    let ((x1, x2), (y1, y2)) = (ends(&xs), ends(&ys));
                    all.extend(corners(&Box2::new(x1, y1, x2, y2)));
                    lines.push(Value::Object(all));
                }
            }
            json!({ "text": page.text(), "lines": lines })
        }
        _ => return None,
    })
}
