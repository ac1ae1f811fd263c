//! What any verb may answer about a picture.

use super::ocr::Page;
use super::overlay;
use super::{Class, DepthMap, Detection, Face, Instance, Person, SegmentMap};
use crate::pixels::{Image, Map, Mask, PixelError};

/// An answer about one picture, or a picture made from it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Answer {
    /// What it shows, best first.
    Classes(Vec<Class>),
    /// What is where.
    Detections(Vec<Detection>),
    /// What is where, with pixels.
    Instances(Vec<Instance>),
    /// A class for every pixel.
    Segments {
        /// The classes.
        map: SegmentMap,
        /// Their names.
        labels: Vec<String>,
    },
    /// How far every pixel is.
    Depth(DepthMap),
    /// How people stand.
    People(Vec<Person>),
    /// Where faces are.
    Faces(Vec<Face>),
    /// What is written.
    Page(Page),
    /// A vector of length 1.
    Vector(Vec<f32>),
    /// A picture.
    Picture(Image),
}

/// Score from which a key point is drawn.
const POINT_THRESHOLD: f32 = 0.2;

impl Answer {
    /// Foreground and background by a matte.
    pub fn from_matte(matte: &Map) -> Answer {
        let classes = matte.values().iter().map(|v| u16::from(*v >= 0.5)).collect();
        let map = SegmentMap { width: matte.width(), height: matte.height(), classes };
        Answer::Segments { map, labels: vec!["background".to_owned(), "foreground".to_owned()] }
    }

    /// The answer drawn over the picture it is about; of depth the map in colours, of a picture the
    /// picture; a vector leaves it as it is.
    ///
    /// # Errors
    /// Those of [`Image::new`].
    pub fn drawn(&self, image: &Image) -> Result<Image, PixelError> {
        match self {
            Answer::Classes(classes) => overlay::classes(image, classes),
            Answer::Detections(found) => overlay::detections(image, found),
            Answer::Instances(found) => overlay::instances(image, found),
            Answer::Segments { map, labels } => overlay::segments(image, map, labels),
            Answer::Depth(depth) => overlay::depth(depth),
            Answer::People(found) => overlay::people(image, found, POINT_THRESHOLD),
            Answer::Faces(found) => overlay::faces(image, found),
            Answer::Page(page) => overlay::page(image, page),
            Answer::Vector(_) => Ok(image.clone()),
            Answer::Picture(picture) => Ok(picture.clone()),
        }
    }

    /// Boxes, scores, classes and masks, for the formats of data sets. Backgrounds are left out.
    pub fn objects(&self) -> Vec<(Detection, Option<Mask>)> {
        match self {
            Answer::Detections(found) => found.iter().map(|d| (d.clone(), None)).collect(),
            Answer::Instances(found) => {
                found.iter().map(|i| (i.detection.clone(), Some(i.mask.clone()))).collect()
            }
            Answer::Segments { map, labels } => map
                .areas()
                .into_iter()
                .filter(|&(class, _)| !overlay::is_background(class, labels))
                .filter_map(|(class, _)| {
                    let mask = map.mask(class);
                    let label = super::output::label(labels, class);
                    Some((Detection { area: mask.bounds()?, score: 1.0, class, label }, Some(mask)))
                })
                .collect(),
            Answer::Faces(found) => found
                .iter()
                .map(|f| {
                    (Detection { area: f.area, score: f.score, class: 0, label: "face".to_owned() }, None)
                })
                .collect(),
            _ => Vec::new(),
        }
    }
}
