"""The CLIPs: one whose text tower conditions the U-Net, one of another seed that scores.

Trained on picture-caption pairs with names, synonyms, four other languages and descriptions, so that words which
the U-Net never met still reach the picture through the text tower.
"""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from . import loop
from .scenes import GROUNDS, STYLED, TEMPLATES, Composer, load_art
from .world import World

LENGTH = 32
VOCABULARY = 4096


def build_tokenizer(world: World, build: Path) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's form, trained on every word that any caption can hold; cached in `build`."""
    folder = build / "tokenizer"
    if (folder / "tokenizer_config.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    lines = [t.format("x", style=s.name) for s in world.all_styles for t in STYLED + TEMPLATES]
    lines += [g.format(b) for g in GROUNDS for b in world.backgrounds]
    for thing in world.all_things:
        lines += [thing.name, *thing.synonyms, *thing.translations, thing.description] * 3
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, initial_alphabet=sorted(alphabet), end_of_word_suffix="</w>", show_progress=False
    )
    bpe.train_from_iterator([line.lower() for line in lines], trainer)
    return write_tokenizer(bpe, folder)


def write_tokenizer(bpe: Tokenizer, folder: Path) -> CLIPTokenizer:
    """Write vocab.json and merges.txt in CLIP's layout: byte symbols, their word-final forms, merges, two specials."""
    state = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in state["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    out = CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=LENGTH,
        pad_token="<|endoftext|>",
    )
    out.save_pretrained(folder)
    return out


def build_config(tokens: CLIPTokenizer) -> CLIPConfig:
    start, end = tokens.bos_token_id, tokens.eos_token_id
    text = dict(
        vocab_size=len(tokens), hidden_act="gelu", hidden_size=192, intermediate_size=768,
        num_hidden_layers=4, num_attention_heads=3,
        max_position_embeddings=LENGTH, projection_dim=192, bos_token_id=start, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    vision = dict(
        hidden_act="gelu", hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3,
        image_size=64, patch_size=8, projection_dim=192,
    )  # fmt: skip
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=192)


class WithHeads(torch.nn.Module):
    """A CLIP with two linear heads on the picture embedding that speed up its first steps; they are thrown away."""

    def __init__(self, clip: CLIPModel, things: int, styles: int) -> None:
        torch.nn.Module.__init__(self)
        self.clip = clip
        self.things = torch.nn.Linear(192, things)
        self.styles = torch.nn.Linear(192, styles)


def train(
    world: World,
    build: Path,
    steps: int,
    warm: bool = False,
    batch: int = 160,
    seed: int = 11,
    lr: float = 1e-3,
    **options: float | None,
) -> CLIPModel:
    """Train a CLIP of seed 11 (`build/clip`) or 12 (`build/scoring`), from that folder's weights when `warm`."""
    tokens = build_tokenizer(world, build)
    torch.manual_seed(seed)
    folder = build / ("clip" if seed == 11 else "scoring")
    body = CLIPModel.from_pretrained(folder) if warm else CLIPModel(build_config(tokens))
    body.set_attn_implementation("eager")  # the backward pass of the fused kernel is several times slower on a CPU
    module = WithHeads(body, len(world.things), len(world.styles))

    def loss(x: Tensor, scenes: list, step: int) -> tuple[Tensor, dict[str, float]]:
        ids = tokens([s.caption for s in scenes], padding="max_length", truncation=True, return_tensors="pt")
        with loop.autocast():
            out = module.clip(input_ids=ids["input_ids"].to(x.device), pixel_values=x)
            things, styles = module.things(out.image_embeds), module.styles(out.image_embeds)
        contrast = contrastive(out.logits_per_text.float(), [s.caption for s in scenes])
        goal = torch.zeros(len(scenes), len(world.things), device=x.device)
        for row, s in enumerate(scenes):
            goal[row, list(s.things)] = 1 / len(s.things)
        style = torch.tensor([s.style for s in scenes], device=x.device)
        aux = F.cross_entropy(10 * things.float(), goal) + F.cross_entropy(10 * styles.float(), style)
        hit = (out.logits_per_text.argmax(1).cpu() == torch.arange(len(scenes))).float().mean()
        return contrast + 0.3 * aux, {"contrast": contrast.item(), "aux": aux.item(), "hit": hit.item()}

    composer = Composer(world, load_art(build), words="all")
    mean = loop.fit(
        f"clip-{seed}", module, loss, composer, build,
        steps=steps, batch=batch, lr=lr, seed=seed, weight_decay=0.1, average=0.98, warmup=40, **options,
    )  # fmt: skip
    assert isinstance(mean, WithHeads)
    return mean.clip


def contrastive(logits: Tensor, captions: list[str]) -> Tensor:
    """CLIP's symmetric loss, equal captions sharing the target so that they are no false negatives."""
    index = {c: i for i, c in enumerate(dict.fromkeys(captions))}
    kind = torch.tensor([index[c] for c in captions], device=logits.device)
    same = (kind[:, None] == kind[None, :]).float()
    return (
        F.cross_entropy(logits, same / same.sum(1, keepdim=True))
        + F.cross_entropy(logits.T, same / same.sum(1, keepdim=True))
    ) / 2
