"""Noise schedules of diffusers, and a tiny Stable Diffusion with random weights as `optimum` lays its ONNX export out.

    python tools/golden/diffusion.py testdata/diffusion

Needs torch, diffusers, transformers, onnx. `schedulers.json`: samples of every scheduler after its first and last step
on a model that is a formula. `tiny/`: the folder of a model. `tiny_inpaint/unet`: a UNet of nine channels, to be put in
the place of the other. `tiny_guided/unet`: one that is told the guidance (LCM). `golden.json` and `*.npy`: what
diffusers' pipelines draw with them, `[3, H, W]` from 0 to 1.

All noise is `pattern(draw, count)`, so that a test can give the same.
"""

import json
import math
import pathlib
import shutil
import sys
import tempfile

import diffusers
import numpy as np
import onnx
import torch
from diffusers import AutoencoderKL, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import clip

PROMPT, NEGATIVE = "a photo of a fox and the dog", "cats"
WIDTH, HEIGHT = 64, 32
STABLE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
draws = 0


def pattern(draw, count):
    i = np.arange(1, count + 1, dtype=np.float64)
    return (1.4 * np.sin(12.9898 * i + 78.233 * (draw + 1))).astype(np.float32)


def drawn(shape, *_, **__):
    global draws
    draws += 1
    return torch.from_numpy(pattern(draws - 1, math.prod(shape)).reshape(tuple(shape)))


def patch():
    """Everything in diffusers that asks for noise gets the pattern."""
    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and hasattr(module, "randn_tensor"):
            module.randn_tensor = drawn


def schedules():
    global draws
    cases = []

    def case(kind, config, steps, begin=None):
        global draws
        draws = 0
        scheduler = getattr(diffusers, kind)(**config)
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps
        if begin is None:
            sample = drawn((1, 12)) * scheduler.init_noise_sigma
        else:
            times = times[begin:]
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(begin)
            start = torch.from_numpy(pattern(100, 12))[None] * 0.5
            sample = scheduler.add_noise(start, drawn((1, 12)), times[:1])
        first = None
        begun = sample
        for time in times:
            scaled = scheduler.scale_model_input(sample, time)
            x = scaled.double()
            out = (0.6 * torch.sin(1.1 * x + 0.003 * float(time)) + 0.2 * x).float()
            sample = scheduler.step(out, time, sample, return_dict=False)[0]
            first = sample if first is None else first
        row = lambda x: [float(v) for v in x.flatten()]
        full = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
        full = {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in full.items()}
        cases.append({
            "config": {"_class_name": kind, **full}, "steps": steps, "begin": begin,
            "timesteps": [float(t) for t in times], "begun": row(begun), "first": row(first), "last": row(sample),
        })

    spacings = ["leading", "linspace", "trailing"]
    for spacing in spacings:
        for prediction in ["epsilon", "v_prediction"]:
            common = dict(STABLE, timestep_spacing=spacing, prediction_type=prediction, steps_offset=1)
            case("DDIMScheduler", dict(common, clip_sample=False, set_alpha_to_one=False), 10)
            case("PNDMScheduler", dict(common, skip_prk_steps=True, set_alpha_to_one=False), 9)
            case("EulerDiscreteScheduler", common, 10)
            case("EulerAncestralDiscreteScheduler", common, 7)
            case("DPMSolverMultistepScheduler", common, 10)
    plain = dict(STABLE, steps_offset=1)
    case("DDIMScheduler", dict(STABLE, clip_sample=True, set_alpha_to_one=True), 50)
    case("DDIMScheduler", dict(beta_schedule="linear", clip_sample=False, prediction_type="sample"), 5)
    case("DDIMScheduler", dict(beta_schedule="squaredcos_cap_v2", clip_sample=False), 5)
    case("DDIMScheduler", dict(STABLE, clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"), 6)
    case("DDIMScheduler", dict(plain, clip_sample=False), 10, begin=4)
    case("PNDMScheduler", dict(plain), 12)
    case("PNDMScheduler", dict(plain, skip_prk_steps=True), 1)
    case("PNDMScheduler", dict(plain, skip_prk_steps=True), 2)
    case("PNDMScheduler", dict(plain, skip_prk_steps=True), 50)
    case("PNDMScheduler", dict(plain, skip_prk_steps=True), 10, begin=3)
    case("EulerDiscreteScheduler", dict(STABLE, timestep_spacing="trailing"), 1)
    case("EulerDiscreteScheduler", dict(plain, use_karras_sigmas=True), 8)
    case("EulerDiscreteScheduler", dict(plain, final_sigmas_type="sigma_min"), 8)
    case("EulerDiscreteScheduler", dict(plain, interpolation_type="linear"), 8, begin=5)
    case("EulerDiscreteScheduler", dict(plain, rescale_betas_zero_snr=True, prediction_type="v_prediction"), 8)
    case("EulerAncestralDiscreteScheduler", dict(plain, timestep_spacing="leading"), 8, begin=2)
    case("DPMSolverMultistepScheduler", dict(plain, use_karras_sigmas=True), 8)
    case("DPMSolverMultistepScheduler", dict(plain, use_karras_sigmas=True), 20)
    case("DPMSolverMultistepScheduler", dict(plain), 25)
    case("DPMSolverMultistepScheduler", dict(plain), 1)
    case("DPMSolverMultistepScheduler", dict(plain, solver_order=1), 6)
    case("DPMSolverMultistepScheduler", dict(plain, solver_type="heun", lower_order_final=False), 6)
    case("DPMSolverMultistepScheduler", dict(plain, final_sigmas_type="sigma_min", euler_at_final=True), 16)
    case("DPMSolverMultistepScheduler", dict(plain), 10, begin=6)
    case("LCMScheduler", dict(STABLE), 1)
    case("LCMScheduler", dict(STABLE), 4)
    case("LCMScheduler", dict(STABLE, prediction_type="v_prediction"), 8, begin=3)
    return cases


def export(module, inputs, path, names, outputs, axes):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        module, inputs, path, input_names=names, output_names=outputs, dynamic_axes=axes, opset_version=17, dynamo=False
    )
    model = onnx.load(path)
    for node in model.graph.node:
        # Where in PyTorch's code a node comes from: half of the file.
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]
    onnx.save(model, path)


class UNet(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample, timestep, encoder_hidden_states, timestep_cond=None):
        return self.model(sample, timestep, encoder_hidden_states, timestep_cond=timestep_cond, return_dict=False)[0]


class Text(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        out = self.model(input_ids=input_ids.long())
        return out.last_hidden_state, out.pooler_output


class Encoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        return self.model.encode(sample).latent_dist.parameters


class Decoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, latent_sample):
        return self.model.decode(latent_sample, return_dict=False)[0]


def unet(folder, channels, widths=(4, 8), guided=None):
    model = UNet2DConditionModel(
        sample_size=8, in_channels=channels, out_channels=4, layers_per_block=1, block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2, norm_num_groups=4, time_cond_proj_dim=guided,
    ).eval()
    names = ["sample", "timestep", "encoder_hidden_states"]
    inputs = [torch.zeros(2, channels, 4, 8), torch.tensor([3]), torch.zeros(2, 77, 16)]
    axes = {
        "sample": {0: "batch_size", 2: "height", 3: "width"}, "timestep": {0: "steps"},
        "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"}, "out_sample": {0: "batch_size", 2: "height", 3: "width"},
    }
    if guided:
        names.append("timestep_cond")
        inputs.append(torch.zeros(2, guided))
        axes["timestep_cond"] = {0: "batch_size"}
    export(UNet(model), tuple(inputs), folder / "unet/model.onnx", names, ["out_sample"], axes)
    (folder / "unet/config.json").write_text(json.dumps(dict(model.config), indent=1, default=str) + "\n")
    return model


def tokenizer(folder):
    """The two files of CLIP's older tokenizer, made from the one of `clip.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        fast, vocab = clip.tokenizer(pathlib.Path(place))
        model = json.loads((pathlib.Path(place) / "tokenizer.json").read_text())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False) + "\n")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    pad = {"pad_token": "!", "bos_token": clip.START, "eos_token": clip.END, "unk_token": clip.END}
    (folder / "special_tokens_map.json").write_text(json.dumps(pad) + "\n")
    config = dict(pad, pad_token=clip.END, tokenizer_class="CLIPTokenizer", model_max_length=77)
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    ids = lambda text: fast.encode(text).ids
    wrapped = CLIPTokenizerFast(tokenizer_object=fast, model_max_length=77, pad_token="!", bos_token=clip.START, eos_token=clip.END, unk_token=clip.END)
    return wrapped, vocab, ids


def save(folder, name, picture):
    np.save(folder / f"{name}.npy", np.ascontiguousarray(picture.transpose(2, 0, 1)).astype(np.float32))


def picture():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 4, y * 7, (x * y) % 256], -1).astype(np.uint8)


def mask():
    m = np.zeros((HEIGHT, WIDTH), np.uint8)
    m[8:24, 16:40] = 255
    return m


def main(folder):
    global draws
    from PIL import Image

    patch()
    torch.manual_seed(11)
    cases = schedules()
    (folder / "schedulers.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    tiny = folder / "tiny"
    tiny.mkdir(parents=True, exist_ok=True)
    wrapped, vocab, ids = tokenizer(tiny / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, bos_token_id=vocab[clip.START], eos_token_id=vocab[clip.END], pad_token_id=vocab["!"],
    )
    config._attn_implementation = "eager"
    text = CLIPTextModel(config).eval()
    for parameter in text.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    export(
        Text(text), (torch.zeros(1, 77, dtype=torch.int32),), tiny / "text_encoder/model.onnx", ["input_ids"],
        ["last_hidden_state", "pooler_output"], {"input_ids": {0: "batch_size", 1: "sequence_length"}},
    )
    (tiny / "text_encoder/config.json").write_text(json.dumps(config.to_dict(), indent=1, default=str) + "\n")
    net = unet(tiny, 4, widths=(8, 16))
    wide = unet(folder / "tiny_inpaint", 9)
    told = unet(folder / "tiny_guided", 4, guided=6)
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2, sample_size=64,
    ).eval()
    spatial = lambda name: {name: {0: "batch_size", 2: "height", 3: "width"}}
    export(
        Decoder(vae), (torch.zeros(1, 4, 4, 8),), tiny / "vae_decoder/model.onnx", ["latent_sample"], ["sample"],
        spatial("latent_sample") | spatial("sample"),
    )
    export(
        Encoder(vae), (torch.zeros(1, 3, 32, 64),), tiny / "vae_encoder/model.onnx", ["sample"], ["latent_parameters"],
        spatial("sample") | spatial("latent_parameters"),
    )
    for half in ["vae_decoder", "vae_encoder"]:
        (tiny / half / "config.json").write_text(json.dumps(dict(vae.config), indent=1, default=str) + "\n")
    scheduler = dict(STABLE, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1)
    (tiny / "scheduler").mkdir(exist_ok=True)
    written = {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000, **scheduler}
    (tiny / "scheduler/scheduler_config.json").write_text(json.dumps(written, indent=1) + "\n")
    index = {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None]}
    (tiny / "model_index.json").write_text(json.dumps(index, indent=1) + "\n")
    Image.fromarray(picture()).save(folder / "picture.png")
    Image.fromarray(mask()).save(folder / "mask.png")

    def run(name, pipeline, net, kind="PNDMScheduler", options=None, **given):
        global draws
        draws = 0
        options = scheduler if options is None else options
        parts = dict(
            vae=vae, text_encoder=text, tokenizer=wrapped, unet=net, scheduler=getattr(diffusers, kind)(**options),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )
        pipe = pipeline(**parts)
        pipe.set_progress_bar_config(disable=True)
        out = pipe(PROMPT, negative_prompt=NEGATIVE, output_type="np", **given).images[0]
        save(folder, name, out)
        runs.append({
            "name": name, "scheduler": {"_class_name": kind, **options}, "steps": given["num_inference_steps"],
            "guidance": given["guidance_scale"], "strength": given.get("strength"),
        })
        print(name, out.shape, float(out.mean()), float(out.std()))

    runs = []
    lcm = dict(STABLE)
    size = dict(width=WIDTH, height=HEIGHT)
    image, hole = Image.fromarray(picture()), Image.fromarray(mask())
    with torch.no_grad():
        run("text", StableDiffusionPipeline, net, num_inference_steps=5, guidance_scale=7.5, **size)
        run("unguided", StableDiffusionPipeline, net, "EulerDiscreteScheduler", dict(STABLE, timestep_spacing="trailing"), num_inference_steps=2, guidance_scale=1.0, **size)
        run("guided", StableDiffusionPipeline, told, "LCMScheduler", lcm, num_inference_steps=3, guidance_scale=8.5, **size)
        run("image", StableDiffusionImg2ImgPipeline, net, image=image, strength=0.6, num_inference_steps=6, guidance_scale=5.0)
        run("inpaint", StableDiffusionInpaintPipeline, net, "DDIMScheduler", dict(STABLE, clip_sample=False, steps_offset=1), image=image, mask_image=hole, strength=0.8, num_inference_steps=5, guidance_scale=5.0, **size)
        run("inpaint9", StableDiffusionInpaintPipeline, wide, "DPMSolverMultistepScheduler", dict(STABLE, steps_offset=1), image=image, mask_image=hole, strength=1.0, num_inference_steps=4, guidance_scale=5.0, **size)
    golden = {"prompt": PROMPT, "negative": NEGATIVE, "ids": ids(PROMPT), "width": WIDTH, "height": HEIGHT, "runs": runs}
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
