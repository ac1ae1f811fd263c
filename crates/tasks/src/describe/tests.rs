use super::{describe as describe_facts, *};
use crate::pixels::fit::{Fit, Place};
use crate::vision::input::{ColorOrder, InputSize, Layout};
use crate::vision::{BoxHead, MatteActivation, PoseHead};
use kun_testkit::golden;

fn port(name: &str, shape: &[usize]) -> Port {
    let shape = shape.iter().map(|&d| (d > 0).then_some(d)).collect();
    Port { name: name.to_owned(), shape, dtype: "float32".to_owned() }
}

fn facts(name: &str, inputs: &[(&str, &[usize])], outputs: &[(&str, &[usize])]) -> Facts {
    let ports = |list: &[(&str, &[usize])]| list.iter().map(|(name, shape)| port(name, shape)).collect();
    Facts { name: name.to_owned(), inputs: ports(inputs), outputs: ports(outputs), ..Facts::default() }
}

fn shared(model: &str) -> Facts {
    let folder = golden::shared()
        .expect("these tests need ../shared beside the repository")
        .join("models")
        .join(model);
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let model_toml = read("model.toml");
    let labels = model_toml.as_deref().and_then(model_toml::label_file).and_then(|name| read(&name));
    Facts { name: model.to_owned(), model_toml, labels, ..Facts::default() }
}

#[test]
fn every_shared_model_is_known_by_its_description() {
    let describe =
        |model: &str, verb| describe_facts(&shared(model), verb).unwrap_or_else(|e| panic!("{model}: {e}"));
    let VisionTask::Classify(task) = describe("classify/squeezenet1.1", Verb::Classify) else { panic!() };
    assert_eq!((task.labels.len(), task.input.fit), (1000, Fit::CenterCrop { short_side: 256 }));
    assert_eq!(task.input.mean, heads::IMAGENET_MEAN);
    describe("classify/cifar10-resnet8", Verb::Classify);
    describe("classify/mobilenet_v2", Verb::Classify);

    let VisionTask::Detect(task) = describe("detect/yolox_nano", Verb::Detect) else { panic!() };
    assert_eq!(task.head, BoxHead::Yolox { output: "output".into(), strides: vec![8, 16, 32] });
    assert_eq!(task.input.fit, Fit::Letterbox { fill: 114, place: Place::Corner });
    assert_eq!((task.input.order, task.input.scale), (ColorOrder::Bgr, 1.0));
    let VisionTask::Detect(task) = describe("detect/fastestdet", Verb::Detect) else { panic!() };
    assert!(matches!(task.head, BoxHead::Cells { .. }));

    let VisionTask::Segment(task) = describe("segment/deeplabv3", Verb::Segment) else { panic!() };
    assert!(task.classes_last && task.input.layout == Layout::Pixels && task.labels[3] == "bird");
    for verb in [Verb::Cutout, Verb::Segment] {
        assert!(matches!(describe("segment/selfie", verb), VisionTask::Matte(_)));
    }
    let VisionTask::Depth(task) = describe("depth/meter_nyu_xxs", Verb::Depth) else { panic!() };
    assert_eq!(task.direction, crate::vision::Direction::Farther);
    assert_eq!(task.input.size, InputSize::Fixed { width: 256, height: 192 });

    let VisionTask::Pose(task) = describe("pose/movenet_lightning", Verb::Pose) else { panic!() };
    assert!(matches!(task.head, PoseHead::MoveNetMaps { .. }) && task.input.fit != Fit::Stretch);
    let VisionTask::Pose(task) = describe("pose/pose_landmark_lite", Verb::Pose) else { panic!() };
    assert!(matches!(task.head, PoseHead::MediaPipe { flag: Some(_), .. }));
    for model in ["face/yunet", "face/ultraface"] {
        assert!(matches!(describe(model, Verb::Faces), VisionTask::Faces(_)));
    }

    let transform = |model: &str, verb| {
        let VisionTask::Transform(task) = describe(model, verb) else { panic!("{model}") };
        task
    };
    for model in ["carn_m_x2", "carn_m_x4", "realesr-animevideov3-x4"] {
        let task = transform(&format!("upscale/{model}"), Verb::Upscale);
        assert!(task.fixed_tile().is_none() && task.output_scale == 255.0 && !task.whole);
    }
    assert_eq!(transform("denoise/dncnn_25", Verb::Denoise).colors, crate::image::Colors::Apart);
    let task = transform("style/candy", Verb::Stylize);
    assert_eq!((task.output_scale, task.multiple, task.whole), (1.0, 4, true));
    let task = transform("lowlight/agllnet", Verb::Enhance);
    assert_eq!((task.first_channel, task.output_pixels, task.gains), (4, true, true));
    assert!(transform("lowlight/tbefn", Verb::Enhance).output_pixels);
    assert!(!transform("lowlight/sci_medium", Verb::Enhance).gains);
}

#[test]
fn ultralytics_metadata_is_enough() {
    let with = |task: &str, outputs: &[(&str, &[usize])]| {
        let mut facts = facts("m", &[("images", &[1, 3, 640, 640])], outputs);
        let names = "{0: 'person', 1: 'dog'}".to_owned();
        facts.metadata = [("names".to_owned(), names), ("task".to_owned(), task.to_owned())].into();
        facts
    };
    let detect = with("detect", &[("output0", &[1, 6, 8400])]);
    let VisionTask::Detect(task) = describe(&detect, Verb::Detect).unwrap() else { panic!() };
    assert_eq!(task.head, BoxHead::Columns { output: "output0".into(), classes: 2 });
    assert_eq!(
        (task.labels[1].as_str(), task.input.fit),
        ("dog", Fit::Letterbox { fill: 114, place: Place::Middle })
    );
    assert!(matches!(describe(&detect, Verb::Pose), Err(DescribeError::OtherTask { .. })));

    let v5 = with("detect", &[("output0", &[1, 25200, 7])]);
    let VisionTask::Detect(task) = describe(&v5, Verb::Detect).unwrap() else { panic!() };
    assert!(matches!(task.head, BoxHead::Objectness { .. }));
    let v10 = with("detect", &[("output0", &[1, 300, 6])]);
    let VisionTask::Detect(task) = describe(&v10, Verb::Detect).unwrap() else { panic!() };
    assert!(matches!(task.head, BoxHead::Final { .. }));

    let segment = with("segment", &[("output0", &[1, 38, 8400]), ("output1", &[1, 32, 160, 160])]);
    let VisionTask::Instances(task) = describe(&segment, Verb::Segment).unwrap() else { panic!() };
    assert_eq!(task.prototypes, "output1");
    assert!(matches!(describe(&segment, Verb::Detect), Ok(VisionTask::Detect(_))));

    let pose = with("pose", &[("output0", &[1, 56, 8400])]);
    let VisionTask::Pose(task) = describe(&pose, Verb::Pose).unwrap() else { panic!() };
    assert_eq!(task.head, PoseHead::Yolo { output: "output0".into(), points: 17 });
    let classify = with("classify", &[("output0", &[1, 2])]);
    assert!(matches!(describe(&classify, Verb::Classify), Ok(VisionTask::Classify(_))));
}

#[test]
fn movenet_is_known_by_its_17_points() {
    let mut movenet = facts("model", &[("input", &[1, 192, 192, 3])], &[("output_0", &[1, 1, 17, 3])]);
    movenet.inputs[0].dtype = "int32".to_owned();
    let VisionTask::Pose(task) = describe(&movenet, Verb::Pose).unwrap() else { panic!() };
    assert_eq!(task.head, PoseHead::MoveNet { output: "output_0".into() });
    assert_eq!((task.input.scale, task.input.layout), (1.0, Layout::Pixels));
    let gray = crate::pixels::Image::rgb(1, 1, vec![7, 8, 9]).unwrap();
    let (tensor, _) = task.input.prepare(&gray).unwrap();
    let kun_tensor::Elements::I32(values) = tensor.elements() else { panic!("{:?}", tensor.elements()) };
    assert_eq!((values.len(), values.iter().max()), (192 * 192 * 3, Some(&9)));
}

#[test]
fn hugging_face_folders_are_enough() {
    let with = |config: serde_json::Value, preprocessor: serde_json::Value, facts: Facts| Facts {
        config: Some(config),
        preprocessor: Some(preprocessor),
        ..facts
    };
    use serde_json::json;
    let vit = with(
        json!({ "architectures": ["ViTForImageClassification"], "model_type": "vit", "id2label": { "0": "cat", "1": "dog" } }),
        json!({ "size": { "height": 224, "width": 224 }, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "resample": 2 }),
        facts("vit", &[("pixel_values", &[0, 3, 0, 0])], &[("logits", &[0, 2])]),
    );
    let VisionTask::Classify(task) = describe(&vit, Verb::Classify).unwrap() else { panic!() };
    assert_eq!(task.input.size, InputSize::Fixed { width: 224, height: 224 });
    assert_eq!((task.input.mean, task.labels.len()), ([0.5; 3], 2));

    // Hugging Face's exporter leaves even the channels open.
    let open = facts("resnet", &[("pixel_values", &[0, 0, 0, 0])], &[("logits", &[0, 2])]);
    let resnet = with(
        json!({ "architectures": ["ResNetForImageClassification"], "model_type": "resnet" }),
        json!({ "size": { "shortest_edge": 256 }, "crop_size": { "height": 224, "width": 224 } }),
        open,
    );
    let VisionTask::Classify(task) = describe(&resnet, Verb::Classify).unwrap() else { panic!() };
    assert_eq!(task.input.size, InputSize::Fixed { width: 224, height: 224 });
    assert_eq!((task.input.layout, task.input.order), (Layout::Planes, ColorOrder::Rgb));
    let swin2sr = with(
        json!({ "architectures": ["Swin2SRForImageSuperResolution"], "model_type": "swin2sr", "window_size": 8 }),
        json!({ "do_rescale": true, "do_pad": true, "pad_size": 8 }),
        facts("swin2sr", &[("pixel_values", &[0, 0, 0, 0])], &[("reconstruction", &[0, 0, 0, 0])]),
    );
    let VisionTask::Transform(task) = describe(&swin2sr, Verb::Upscale).unwrap() else { panic!() };
    assert_eq!((task.multiple, task.fixed_tile()), (8, None));

    let rtdetr = with(
        json!({ "architectures": ["RTDetrForObjectDetection"], "model_type": "rt_detr" }),
        json!({ "do_normalize": false, "size": { "height": 640, "width": 640 } }),
        facts(
            "r",
            &[("pixel_values", &[0, 3, 0, 0])],
            &[("logits", &[0, 300, 80]), ("pred_boxes", &[0, 300, 4])],
        ),
    );
    let VisionTask::Detect(task) = describe(&rtdetr, Verb::Detect).unwrap() else { panic!() };
    assert!(matches!(task.head, BoxHead::Queries { softmax: false, .. }));
    assert_eq!(task.input.mean, [0.0; 3]);

    let segformer = with(
        json!({ "architectures": ["SegformerForSemanticSegmentation"], "model_type": "segformer" }),
        json!({ "size": { "height": 512, "width": 512 } }),
        facts("s", &[("pixel_values", &[0, 3, 0, 0])], &[("logits", &[0, 150, 0, 0])]),
    );
    let VisionTask::Segment(task) = describe(&segformer, Verb::Segment).unwrap() else { panic!() };
    assert!(!task.classes_last);

    let depth = with(
        json!({ "architectures": ["DepthAnythingForDepthEstimation"], "model_type": "depth_anything" }),
        json!({ "size": { "height": 518, "width": 518 }, "keep_aspect_ratio": true, "ensure_multiple_of": 14, "resample": 3 }),
        facts("d", &[("pixel_values", &[0, 3, 0, 0])], &[("predicted_depth", &[0, 0, 0])]),
    );
    let VisionTask::Depth(task) = describe(&depth, Verb::Depth).unwrap() else { panic!() };
    assert_eq!(task.input.size, InputSize::ShortSide { short_side: 518, multiple: 14 });
    assert!(matches!(describe(&depth, Verb::Detect), Err(DescribeError::OtherTask { .. })));
}

#[test]
fn well_known_networks_need_nothing_beside_them() {
    let yolox = facts("yolox_s", &[("images", &[1, 3, 640, 640])], &[("output", &[1, 8400, 85])]);
    let VisionTask::Detect(task) = describe(&yolox, Verb::Detect).unwrap() else { panic!() };
    assert!(matches!(task.head, BoxHead::Yolox { .. }) && task.labels[0] == "person");
    let u2net = facts("u2net", &[("input.1", &[1, 3, 320, 320])], &[("1959", &[1, 1, 320, 320])]);
    let VisionTask::Matte(task) = describe(&u2net, Verb::Cutout).unwrap() else { panic!() };
    assert_eq!(task.activation, MatteActivation::Spread);
    let srvgg = facts("realesr-general-x4v3", &[("input", &[0, 3, 0, 0])], &[("output", &[0, 3, 0, 0])]);
    assert!(matches!(describe(&srvgg, Verb::Upscale), Ok(VisionTask::Transform(_))));
    let midas = facts("midas_v21_small", &[("input", &[1, 3, 256, 256])], &[("output", &[1, 256, 256])]);
    assert!(matches!(describe(&midas, Verb::Depth), Ok(VisionTask::Depth(_))));
    let yunet: Vec<(String, [usize; 3])> = [8, 16, 32]
        .iter()
        .flat_map(|s| {
            [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)].map(|(n, c)| (format!("{n}_{s}"), [1, 0, c]))
        })
        .collect();
    let outputs: Vec<(&str, &[usize])> = yunet.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
    let yunet = facts("face_detection_yunet_2023mar", &[("input", &[1, 3, 640, 640])], &outputs);
    assert!(matches!(describe(&yunet, Verb::Faces), Ok(VisionTask::Faces(_))));
}

#[test]
fn an_unknown_model_says_how_to_describe_it() {
    let unknown = facts("mystery", &[("x", &[1, 3, 0, 0])], &[("y", &[1, 7])]);
    let error = describe(&unknown, Verb::Classify).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("task = \"image-classification\"") && text.contains("shape = [1, 3, \"n\", \"n\"]"),
        "{text}"
    );
    // The example is itself a description that can be followed once its sizes are filled in.
    let DescribeError::Unknown { example, .. } = error else { panic!() };
    let filled = example.replace("\"n\"", "32");
    let described = Facts { model_toml: Some(filled), ..unknown };
    assert!(matches!(describe(&described, Verb::Classify), Ok(VisionTask::Classify(_))));
}

#[test]
fn broken_descriptions_name_the_key() {
    for (text, word) in [
        ("task = 3", "string"),
        ("task = \"telepathy\"", "telepathy"),
        (
            "task = \"depth\"\n[input]\nname = \"x\"\nshape = [1, 3, 4, 4]\nstd = [0.0]\n[[output]]\nname = \"y\"",
            "std",
        ),
        (
            "task = \"depth\"\n[input]\nname = \"x\"\nshape = [1, 3, 99999, 4]\n[[output]]\nname = \"y\"",
            "99999",
        ),
        (
            "task = \"depth\"\n[input]\nname = \"x\"\nshape = [1, 3, 4, 4]\nresize = \"fold\"\n[[output]]\nname = \"y\"",
            "fold",
        ),
        (
            "task = \"detect\"\nhead = \"magic\"\n[input]\nname = \"x\"\nshape = [1, 3, 4, 4]\n[[output]]\nname = \"y\"",
            "magic",
        ),
    ] {
        let facts = Facts { model_toml: Some(text.to_owned()), ..Facts::default() };
        let verb = if text.contains("detect") { Verb::Detect } else { Verb::Depth };
        let error = describe(&facts, verb).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}
