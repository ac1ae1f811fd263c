//! Flags of the verbs that look at pictures or make them.

use super::values::{parse_bytes, parse_count, parse_precision};
use clap::Args;
use kun_engine::DType;
use std::path::PathBuf;

/// Where pictures come from and where answers go.
#[derive(Args, Clone, Debug)]
pub struct PictureArgs {
    /// Pictures: files, folders, patterns such as 'photos/*.jpg'; `-`: stdin
    #[arg(required = true, value_name = "PICTURE")]
    pub inputs: Vec<String>,
    /// Model name, .onnx file or folder [default: the catalogue's for this verb]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// Write to a file (.json .jsonl .txt; .png .jpg .webp: the answer drawn over the picture) or a folder of pictures
    #[arg(short, long, value_name = "FILE|DIR")]
    pub output: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, conflicts_with = "jsonl")]
    pub json: bool,
    /// Print a JSON object a line
    #[arg(long)]
    pub jsonl: bool,
    /// Also write one contact sheet of all drawn answers
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub sheet: Option<PathBuf>,
    /// Refuse pictures of more than this many million pixels
    #[arg(long, default_value = "64", value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub max_megapixels: usize,
    /// Compute threads [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub threads: Option<usize>,
    /// Type that products are computed in: f32, or bf16 where the processor has it
    #[arg(long, value_parser = parse_precision, value_name = "TYPE", hide_short_help = true)]
    pub precision: Option<DType>,
}

/// Find things in pictures
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun detect photo.jpg -o boxes.png
  kun detect photos/ -m ./yolo11n.onnx --jsonl
  kun detect 'photos/*.jpg' --coco boxes.json --sheet sheet.png")]
pub struct DetectArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Lowest score shown, 0 to 1 [default: the model's]
    #[arg(long, value_name = "SCORE")]
    pub threshold: Option<f32>,
    #[command(flatten)]
    pub export: ExportArgs,
}

/// Formats of data sets.
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// Also write COCO's JSON
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub coco: Option<PathBuf>,
    /// Also write a text file a picture in YOLO's form
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub yolo: Option<PathBuf>,
}

/// Tell which pixels are what
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun segment photo.jpg -o regions.png
  kun segment photos/ -m ./segformer --json")]
pub struct SegmentArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Lowest score shown, 0 to 1 [default: the model's]
    #[arg(long, value_name = "SCORE")]
    pub threshold: Option<f32>,
    #[command(flatten)]
    pub export: ExportArgs,
}

/// Estimate how far everything in a picture is
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun depth photo.jpg -o depth.png
  kun depth photo.jpg --gray -o depth16.png")]
pub struct DepthArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Draw grey values of 16 bits, near is white, instead of colours
    #[arg(long)]
    pub gray: bool,
}

/// Find people's key points
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun pose photo.jpg -o pose.png --json")]
pub struct PoseArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Lowest score of a person, 0 to 1 [default: the model's]
    #[arg(long, value_name = "SCORE")]
    pub threshold: Option<f32>,
}

/// Find faces
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun faces group.jpg -o faces.png")]
pub struct FacesArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Lowest score shown, 0 to 1 [default: the model's]
    #[arg(long, value_name = "SCORE")]
    pub threshold: Option<f32>,
}

/// Read the text of pictures, Chinese and English by default
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun ocr scan.png
  kun ocr scans/ -o text.jsonl
  kun ocr page.jpg -o page.md
  kun ocr page.jpg --json | jq -r .text")]
pub struct OcrArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Print Markdown: headings and paragraphs
    #[arg(long, conflicts_with_all = ["json", "jsonl"])]
    pub markdown: bool,
    /// Leave out lines read with less certainty, 0 to 1
    #[arg(long, default_value_t = 0.5, value_name = "SCORE", hide_short_help = true)]
    pub threshold: f32,
}

/// How a picture is made from a picture.
#[derive(Args, Debug)]
pub struct TransformArgs {
    #[command(flatten)]
    pub pictures: PictureArgs,
    /// Longest side of a tile, in pixels; smaller ones take less memory
    #[arg(long, value_parser = parse_count, value_name = "PIXELS", hide_short_help = true)]
    pub tile: Option<usize>,
}

/// Enlarge pictures
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun upscale small.jpg -o large.png")]
pub struct UpscaleArgs {
    #[command(flatten)]
    pub transform: TransformArgs,
}

/// Remove noise from pictures
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun denoise noisy.png -o clean.png -m ./dncnn.onnx")]
pub struct DenoiseArgs {
    #[command(flatten)]
    pub transform: TransformArgs,
}

/// Brighten pictures taken in the dark
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun enhance night.jpg -o bright.jpg")]
pub struct EnhanceArgs {
    #[command(flatten)]
    pub transform: TransformArgs,
}

/// Paint pictures in the style that a model has learned
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun stylize photo.jpg -o candy.png -m ./candy.onnx")]
pub struct StylizeArgs {
    #[command(flatten)]
    pub transform: TransformArgs,
}

/// Remove the background: what is not in front becomes transparent
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun cutout portrait.jpg -o portrait.png")]
pub struct CutoutArgs {
    #[command(flatten)]
    pub transform: TransformArgs,
}

/// Draw a picture from words, or change one by words
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun image \"a red fox in the snow\" -m ./stable-diffusion-onnx -o fox.png
  kun image \"a red fox\" --size 512x768 --steps 25 --seed 7 -n 4 -o fox.png
  kun image \"a watercolour\" --image photo.jpg --strength 0.6 -o painted.png
  kun image \"a red fox\" --image photo.png --mask hole.png -o filled.png")]
pub struct ImageArgs {
    /// What is in the picture
    pub prompt: String,
    /// Model name or folder of ONNX files [default: the catalogue's]
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
    /// File to write (.png .jpg .webp .bmp .tiff); of several pictures, NAME-1.png, NAME-2.png, ..
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What is not in the picture
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub negative: String,
    /// Steps [default: what suits the model]
    #[arg(long, value_parser = parse_count, value_name = "COUNT")]
    pub steps: Option<usize>,
    /// How far from --negative to the prompt; 1: no guidance [default: what suits the model]
    #[arg(long, value_name = "SCALE")]
    pub guidance: Option<f32>,
    /// Pixels, WIDTHxHEIGHT [default: what the model was made for]
    #[arg(long, value_parser = super::values::parse_size, value_name = "WxH")]
    pub size: Option<(usize, usize)>,
    /// The noise that is begun with: the same one gives the same picture [default: a new one, which is told]
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How many pictures; each has the next seed
    #[arg(short = 'n', long, default_value = "1", value_parser = parse_count, value_name = "COUNT")]
    pub count: usize,
    /// A picture to change
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// How far it is changed, 0 to 1 [default: 0.8]
    #[arg(long, requires = "image", value_name = "PART")]
    pub strength: Option<f32>,
    /// What of it is drawn anew: where this picture is white, or transparent if it has transparency
    #[arg(long, requires = "image", value_name = "FILE")]
    pub mask: Option<PathBuf>,
    /// Cut prompts that are too long instead of refusing them
    #[arg(long, hide_short_help = true)]
    pub truncate: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Most memory the model may take, such as 8GiB [default: what is available]
    #[arg(long, value_parser = parse_bytes, value_name = "BYTES", hide_short_help = true)]
    pub max_memory: Option<u64>,
    /// Compute threads [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub threads: Option<usize>,
    /// Type that products are computed in: f32, or bf16 where the processor has it
    #[arg(long, value_parser = parse_precision, value_name = "TYPE", hide_short_help = true)]
    pub precision: Option<DType>,
}

/// Mean average precision of a detector over pictures with YOLO labels
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval detect ./yolox_nano.onnx --data coco8/")]
pub struct EvalDetectArgs {
    /// Model name, .onnx file or folder
    pub model: String,
    /// Folder with images/ and labels/ (`class cx cy w h`, relative)
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    #[command(flatten)]
    pub measure: MeasureArgs,
}

/// Intersection over union of segmentation
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval segment ./deeplab.onnx --input bird.png --target bird_mask.png")]
pub struct EvalSegmentArgs {
    /// Model name, .onnx file or folder
    pub model: String,
    #[command(flatten)]
    pub pairs: PairArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
}

/// Character error rate of reading
#[derive(Args, Debug)]
#[command(before_help = "Example:
  kun eval ocr --data words/")]
pub struct EvalOcrArgs {
    /// Model name or folder [default: the catalogue's]
    pub model: Option<String>,
    /// Folder of pictures with labels.tsv: `file` and `text` in the first two columns
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Every picture is one level line
    #[arg(long)]
    pub lines: bool,
    #[command(flatten)]
    pub measure: MeasureArgs,
}

/// PSNR and SSIM of pictures made from pictures
#[derive(Args, Debug)]
#[command(before_help = "Examples:
  kun eval image upscale ./carn_m_x2.onnx --input set5/lr_x2 --target set5/
  kun eval image denoise ./dncnn.onnx --input 'noisy/*.png' --target 'clean/*.png'")]
pub struct EvalImageArgs {
    /// upscale, denoise or enhance
    pub verb: String,
    /// Model name, .onnx file or folder
    pub model: String,
    #[command(flatten)]
    pub pairs: PairArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
}

/// Pictures and what they should become.
#[derive(Args, Debug)]
pub struct PairArgs {
    /// Picture, folder or pattern
    #[arg(long, value_name = "PICTURE")]
    pub input: String,
    /// The true answers, in the same order or with the same names
    #[arg(long, value_name = "PICTURE")]
    pub target: String,
}

/// How a measurement runs and is shown.
#[derive(Args, Debug)]
pub struct MeasureArgs {
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Compute threads [default: the physical cores this process may use]
    #[arg(short = 't', long, value_parser = parse_count, value_name = "COUNT", hide_short_help = true)]
    pub threads: Option<usize>,
    /// Type that products are computed in: f32, or bf16 where the processor has it
    #[arg(long, value_parser = parse_precision, value_name = "TYPE", hide_short_help = true)]
    pub precision: Option<DType>,
}
