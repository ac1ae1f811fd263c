"""A tiny CLIP with random weights in the layout of an exported Hugging Face folder, and what it answers.

    python tools/golden/clip.py testdata/clip

Needs torch, transformers, onnx, pillow. `onnx/vision_model.onnx` gives `image_embeds`, `onnx/text_model.onnx`
`text_embeds`; `golden.json` holds both for a picture and some texts, computed by transformers.
"""

import json
import pathlib
import string
import sys

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

TEXTS = ["a photo of a cat", "A DOG!", "two cats and a dog", "the 7 red foxes' den", "狐狸"]
START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer(folder):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["the", "cat", "dog", "photo", "of", "a", "and", "fox"]
    vocab, merges = {}, []
    for symbol in alphabet + [symbol + "</w>" for symbol in alphabet]:
        vocab.setdefault(symbol, len(vocab))
    for word in words:
        parts = list(word[:-1]) + [word[-1] + "</w>"]
        while len(parts) > 1:
            if (parts[0], parts[1]) not in merges:
                merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1]] + parts[2:]
            vocab.setdefault(parts[0], len(vocab))
    for special in (START, END):
        vocab[special] = len(vocab)
    fast = Tokenizer(models.BPE(vocab, merges, unk_token=END, continuing_subword_prefix="", end_of_word_suffix="</w>"))
    fast.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.RobertaProcessing(
        (END, vocab[END]), (START, vocab[START]), trim_offsets=False, add_prefix_space=False
    )
    fast.add_special_tokens([START, END])
    fast.save(str(folder / "tokenizer.json"))
    wrapped = {"tokenizer_class": "CLIPTokenizer", "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(wrapped, indent=1) + "\n")
    return fast, vocab


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        pooled = self.model.vision_model(pixel_values=pixel_values).pooler_output
        return self.model.visual_projection(pooled)


class Text(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        pooled = self.model.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return self.model.text_projection(pooled)


def picture():
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, (x * y) % 256], -1).astype(np.uint8)


def main(folder):
    torch.manual_seed(7)
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    fast, vocab = tokenizer(folder)
    config = CLIPConfig(
        text_config=dict(
            vocab_size=len(vocab), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=16, bos_token_id=vocab[START], eos_token_id=vocab[END], pad_token_id=vocab[END],
        ),
        vision_config=dict(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
        ),
        projection_dim=24,
    )
    config._attn_implementation = "eager"
    model = CLIPModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    config.architectures = ["CLIPModel"]
    kept = config.to_dict()
    (folder / "config.json").write_text(json.dumps(kept, indent=1, sort_keys=True, default=str) + "\n")
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    pixels = processor(images=Image.fromarray(picture()), return_tensors="pt")["pixel_values"]
    ids = torch.tensor([fast.encode(TEXTS[0]).ids])
    mask = torch.ones_like(ids)
    torch.onnx.export(
        Vision(model), (pixels,), folder / "onnx/vision_model.onnx", input_names=["pixel_values"],
        output_names=["image_embeds"], dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}},
        opset_version=17, dynamo=False,
    )
    torch.onnx.export(
        Text(model), (ids, mask), folder / "onnx/text_model.onnx", input_names=["input_ids", "attention_mask"],
        output_names=["text_embeds"],
        dynamic_axes={
            "input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "tokens"}, "text_embeds": {0: "batch"}
        },
        opset_version=17, dynamo=False,
    )
    unit = lambda v: (v / v.norm()).tolist()
    with torch.no_grad():
        image = unit(Vision(model)(pixels)[0])
        texts = []
        for text in TEXTS:
            ids = fast.encode(text).ids
            row = torch.tensor([ids])
            texts.append({"text": text, "ids": ids, "vector": unit(Text(model)(row, torch.ones_like(row))[0])})
    (folder / "golden.json").write_text(json.dumps({"image": image, "texts": texts}) + "\n")
    Image.fromarray(picture()).save(folder / "picture.png")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
