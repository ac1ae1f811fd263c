use super::*;
use crate::Pass;
use kun_tasks::vision::input::{Input, InputSize};
use kun_tensor::{Tensor, Tensors};

/// Repeats every pixel `scale` times and takes the mean with its right neighbour, so that borders of tiles show.
struct Enlarge(usize);

impl Pass for Enlarge {
    fn cost(&self, _: &Tensors) -> usize {
        1
    }
    fn budget(&self) -> usize {
        1
    }
    fn run(&mut self, batch: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>> {
        let scale = self.0;
        let one = |item: Tensors| {
            let x = &item["x"];
            let (c, h, w) = (x.shape()[0], x.shape()[1], x.shape()[2]);
            let v = x.as_f32().unwrap();
            let mut out = Vec::new();
            for plane in v.chunks_exact(h * w) {
                for y in 0..h * scale {
                    for x in 0..w * scale {
                        let at = |x: usize| plane[y / scale * w + x];
                        out.push((at(x / scale) + at((x / scale + 1).min(w - 1))) / 2.0);
                    }
                }
            }
            let y = Tensor::f32([c, h * scale, w * scale], out).unwrap();
            Ok(Tensors::from([("y".to_owned(), y)]))
        };
        batch.into_iter().map(one).collect()
    }
}

/// [`Enlarge`], but only of tiles that are 8 pixels wide.
struct Narrow;

impl Pass for Narrow {
    fn cost(&self, _: &Tensors) -> usize {
        1
    }
    fn budget(&self) -> usize {
        1
    }
    fn run(&mut self, batch: Vec<Tensors>) -> Vec<Result<Tensors, EngineError>> {
        let width = batch[0]["x"].shape()[2];
        if width == 8 { Enlarge(1).run(batch) } else { vec![Err(EngineError::Unloaded)] }
    }
}

#[test]
fn a_style_network_is_freed_from_its_files_size_if_it_runs_on_others() {
    let input = Input { size: InputSize::Fixed { width: 8, height: 8 }, ..Input::rgb("x", 1, 1) };
    let tiles = Transform { multiple: 4, ..Transform::new(input, "y") };
    let whole = Transform { whole: true, ..tiles.clone() };
    for (pass, before, fixed) in
        [(true, &whole, None), (true, &tiles, Some((8, 8))), (false, &whole, Some((8, 8)))]
    {
        let model = if pass { PassModel::start(Enlarge(1)) } else { PassModel::start(Narrow) }.unwrap();
        let mut task = before.clone();
        free_size(&model, &mut task);
        assert_eq!(task.fixed_tile(), fixed, "{before:?}");
    }
}

fn task() -> Transform {
    let input = Input { size: InputSize::ShortSide { short_side: 1, multiple: 4 }, ..Input::rgb("x", 1, 1) };
    Transform { multiple: 4, overlap: 8, ..Transform::new(input, "y") }
}

fn picture(w: usize, h: usize, channels: usize, bits: usize) -> Image {
    let planes: Vec<Vec<f32>> = (0..channels)
        .map(|c| (0..w * h).map(|i| ((i % w) * 3 / 2 + i / w + c * 20) as f32).collect())
        .collect();
    Image::from_planes(w, h, &planes, bits).unwrap()
}

#[test]
fn tiles_show_no_seam_and_agree_with_the_whole() {
    let model = PassModel::start(Enlarge(2)).unwrap();
    let image = picture(83, 61, 3, 8);
    let whole = run(&model, &task(), 4096, &image, &mut |_, _| true).unwrap();
    let mut tiles = 0;
    let tiled = run(&model, &task(), 32, &image, &mut |_, all| {
        tiles = all;
        true
    })
    .unwrap();
    assert!(tiles > 4 && (whole.width(), whole.height()) == (166, 122));
    for c in 0..3 {
        let off = whole.plane(c).iter().zip(tiled.plane(c)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 1.0, "{off}");
    }
    let plan = plan(&model, &task(), 32, &image).unwrap();
    assert_eq!((plan.width, plan.height, plan.tiles), (166, 122, tiles));
}

#[test]
fn alpha_grey_and_sixteen_bits_stay() {
    let model = PassModel::start(Enlarge(1)).unwrap();
    for (channels, bits) in [(1, 8), (2, 16), (4, 8), (3, 16)] {
        let image = picture(20, 12, channels, bits);
        let out = run(&model, &task(), 512, &image, &mut |_, _| true).unwrap();
        assert_eq!((out.channels(), out.bits(), out.width()), (channels, bits, 20));
        if image.has_alpha() {
            assert_eq!(out.alpha(), image.alpha());
        }
    }
}

#[test]
fn small_pictures_and_strips_are_filled_up() {
    let model = PassModel::start(Enlarge(3)).unwrap();
    for (w, h) in [(1, 1), (1, 40), (100, 3)] {
        let out = run(&model, &task(), 32, &picture(w, h, 3, 8), &mut |_, _| true).unwrap();
        assert_eq!((out.width(), out.height()), (3 * w, 3 * h));
    }
    assert_eq!((0..8).map(|i| mirrored(i, 3)).collect::<Vec<_>>(), [0, 1, 2, 1, 0, 1, 2, 1]);
}
