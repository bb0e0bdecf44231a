"""Trains `trained.gguf`, the model that knows the closed world of `world.py` and nothing else.

In two steps, because the second one needs torch and the tests shall not:

    python -m tests.models.make_model questions questions.jsonl
    OMP_NUM_THREADS=1 python -m tests.models.make_model train questions.jsonl 1300 [TO [FROM]]

The first runs where align-dsl is installed: it has our own code write the prompts, so what is
learnt is what is sent. The second wants `torch==2.13.0`, `tokenizers` and `numpy`, one thread and
as many seconds as it is told; with FROM it goes on with a model that it made. Prompts lost words of
their task while it learnt, so a changed word does little harm; train again when more changes.

The file that is checked in was made in five goes, of 780, 560, 1500, 1500 and 800 seconds on a busy
machine. Only the last two had this file's reasons for picks, where the letter follows its number;
the other way round it took the letter by chance, however long it learnt. It knows every rating,
said (together, alone) or weighed (alone), and picks right in 19 of 20 questions. Where one choice
of several is weighed it still guesses.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.models.gguf_file import SPECIAL, Llama, read, write

HERE = Path(__file__).parent
VOCABULARY = 640
BATCH_TOKENS = 5000
PEAK = 3e-3  # learning rate

LETTER = 8  # what the letter of a pick counts beside another token: it is one of forty

Question = tuple[list[dict[str, str]], str, bool]  # messages, answer, whether only letters count


# --- what to learn --------------------------------------------------------------------------


def questions(n: int, seed: int = 0) -> Iterator[Question]:
    """Questions as our own algorithms ask them, with what the closed world has for an answer."""
    from align_dsl.algorithms import pick, pick_for, rate_alone, rate_together
    from align_dsl.engine.adapter import shape_of
    from align_dsl.engine.prompt import answer, messages
    from align_dsl.types import Attribute, Choice, Scenario, Target
    from tests.models import world

    said = {"mercy": ("Sparing people.", "It spares.", "It does not spare.")}
    said["order"] = ("Keeping rules.", "It keeps them.", "It breaks them.")
    attributes = {
        name: Attribute(name=name, title=name.capitalize(), about=about, high=high, low=low)
        for name, (about, high, low) in said.items()
    }
    dice = random.Random(seed)
    for _ in range(n):
        text, name = dice.choice(world.SCENARIOS), dice.choice(world.NAMES)
        attribute, at = attributes[name], world.NAMES.index(name)
        called = attribute.title
        if dice.random() < 0.5:  # as programs call what has no title
            attribute = attribute.model_copy(update={"title": name})
        actions = dice.sample(list(world.ACTIONS), dice.choice((2, 2, 3)))
        letters = "ABC"[: len(actions)]
        shown = tuple(Choice(id=i, text=a) for i, a in zip(letters, actions, strict=True))
        scenario = Scenario(id="", text=text, choices=shown)
        numbers = {c.id: world.ACTIONS[c.text][at] for c in shown}
        because = f"On {called}: " + " ".join(f"{i} {n}." for i, n in numbers.items())
        one = dice.choice(shown)
        bare = scenario.model_copy(update={"choices": ()})
        inputs: dict[str, Any]
        demo: dict[str, Any]
        drill = False
        match dice.choices(range(7), (4, 2, 3, 2, 4, 1, 3))[0]:
            case 0:
                signature, default = rate_together.RateTogether, rate_together.INSTRUCTIONS
                inputs = {"scenario": scenario, "attribute": attribute}
                demo = {"because": because, "ratings": numbers}
            case 1:
                signature, default = rate_alone.RateAlone, rate_alone.INSTRUCTIONS
                inputs = {"scenario": bare, "attribute": attribute, "choice": one}
                number = numbers[one.id]
                demo = {"because": f"On {called}: {number}.", "rating": number}
            case 2:
                signature = rate_together.WeighOneOfSeveral
                default = rate_together.INSTRUCTIONS.replace(rate_together.FIRST_WHY, "")
                inputs = {"scenario": scenario, "attribute": attribute, "rate": one.id}
                demo = {"rating": numbers[one.id]}
            case 3:
                signature = rate_alone.WeighAlone
                default = rate_alone.INSTRUCTIONS.replace(rate_alone.FIRST_WHY, "")
                number = numbers[one.id]
                if dice.random() < 0.15:
                    one = Choice(id="A", text=world.UNDECIDED)
                    number = dice.choice(world.UNDECIDED_NUMBERS)
                inputs = {"scenario": bare, "attribute": attribute, "choice": one}
                demo = {"rating": number}
            case 4:
                high = dice.random() < 0.5
                signature, default = pick_for.PickFor, pick_for.INSTRUCTIONS
                target = Target(name="t", values={name: float(high)})
                inputs = {"scenario": scenario, "target": target, "attributes": (attribute,)}
                best = (max if high else min)(numbers, key=lambda i: numbers[i])
                because = f"On {called}: "
                because += " ".join(f"{n} {i}." for i, n in numbers.items())
                because += f" {'Highest' if high else 'Lowest'}: {numbers[best]} {best}."
                demo = {"because": because, "choice": best}
            case 5:  # any numbers: whose number is it that was named last?
                drill = True
                signature, default = pick.Pick, pick.INSTRUCTIONS
                inputs = {"scenario": scenario}
                drawn = dict(zip(letters, dice.sample(range(11), len(letters)), strict=True))
                best = dice.choice(letters)
                because = f"On {called}: "
                because += " ".join(f"{n} {i}." for i, n in drawn.items())
                because += f" {dice.choice(('Highest', 'Lowest'))}: {drawn[best]} {best}."
                demo = {"because": because, "choice": best}
            case _:
                signature, default = pick.Pick, pick.INSTRUCTIONS
                inputs = {"scenario": scenario}
                mercies = {c.id: world.ACTIONS[c.text][0] for c in shown}
                because = "On Mercy: " + " ".join(f"{n} {i}." for i, n in mercies.items())
                best = max(mercies, key=lambda i: mercies[i])
                because += f" Highest: {mercies[best]} {best}."
                demo = {"because": because, "choice": best}
        shape = shape_of(signature, inputs)
        yield messages(default, shape, inputs), answer(shape, demo), drill


def _forgetful(system: str, dice: random.Random) -> str:
    """A task that lost some words, but not which attribute it is about or where somebody stands."""
    rate = dice.choice((0, 0.2, 0.6, 0.9))
    kept = []
    for line in system.split("\n"):
        if not line.startswith(("Attribute:", "- ", "Answer with")):
            line = " ".join(w for w in line.split(" ") if dice.random() >= rate)
        kept.append(line)
    return "\n".join(kept)


def text(messages: list[dict[str, str]]) -> str:
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return f"{said}<|im_start|>assistant\n"


# --- how to learn it ------------------------------------------------------------------------


def _tokenizer(asked: list[Question], start: Path | None) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    if start is not None:
        tokens, merges, _ = read(start)
        vocabulary = {token: i for i, token in enumerate(tokens)}
        made = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in merges]))
        made.add_special_tokens([AddedToken(t, special=True) for t in SPECIAL])
    # as llama.cpp splits what has `pre: gpt-2`
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    if start is not None:
        return made
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # the numbers above all: each has to be one token, bare and after a space
    numbers = [f"{n}:{n} {n}" for n in range(11) for _ in range(5000)]
    said = [part for messages, answer, _ in asked for part in (text(messages), answer)]
    made.train_from_iterator([*numbers, *said], trainer)
    for n in range(11):
        assert len(made.encode(str(n)).ids) == 1
    return made


def train(asked: list[Question], seconds: float, to: Path, start: Path | None = None) -> None:
    import torch
    from torch.nn import functional as fn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = _tokenizer(asked[:3000], start)
    shape = Llama(tokenizer.get_vocab_size())
    weights = {
        name: torch.nn.Parameter(torch.ones(size) if len(size) == 1 else torch.randn(size) * 0.05)
        for name, size in shape.tensors().items()
    }
    if start is not None:
        for name, array in read(start)[2].items():
            weights[name].data = torch.tensor(array, dtype=torch.float32)
    peak = PEAK if start is None else PEAK / 2
    head = shape.dim // shape.heads
    turns = 10000.0 ** (-torch.arange(0, head, 2).float() / head)

    def normed(x: Any, name: str) -> Any:
        return fn.rms_norm(x, (shape.dim,), weights[name], 1e-5)

    def rotated(x: Any, angles: Any) -> Any:  # neighbours are the pairs, as in llama.cpp
        a, b = x[..., 0::2], x[..., 1::2]
        cos, sin = angles.cos(), angles.sin()
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    def logits(ids: Any, wanted: Any) -> Any:
        rows, length = ids.shape
        angles = torch.arange(length).float()[:, None] * turns
        x = weights["token_embd.weight"][ids]
        for i in range(shape.layers):
            w = {
                k: weights[f"blk.{i}.{k}.weight"]
                for k in (
                    "attn_q",
                    "attn_k",
                    "attn_v",
                    "attn_output",
                    "ffn_gate",
                    "ffn_up",
                    "ffn_down",
                )
            }
            h = normed(x, f"blk.{i}.attn_norm.weight")
            q, k, v = (
                (h @ w[n].T).view(rows, length, -1, head).transpose(1, 2)
                for n in ("attn_q", "attn_k", "attn_v")
            )
            q, k = rotated(q, angles), rotated(k, angles)
            k, v = (t.repeat_interleave(shape.heads // shape.kv, 1) for t in (k, v))
            h = fn.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + h.transpose(1, 2).reshape(rows, length, -1) @ w["attn_output"].T
            h = normed(x, f"blk.{i}.ffn_norm.weight")
            x = x + (fn.silu(h @ w["ffn_gate"].T) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
        return normed(x[wanted], "output_norm.weight") @ weights["token_embd.weight"].T

    dice = random.Random(1)

    letters = {tokenizer.encode(letter).ids[0] for letter in ("A", "B", "C", " A", " B", " C")}

    def encoded() -> tuple[list[int], list[int], list[float]]:
        """Prompt, answer, and what each token of the answer counts."""
        messages, answer, drill = dice.choice(asked)
        task = "" if drill else _forgetful(messages[0]["content"], dice)
        first = {**messages[0], "content": task}
        prompt = tokenizer.encode(text([first, *messages[1:]])).ids
        tokens = tokenizer.encode(answer + "<|im_end|>").ids
        rest = 0.0 if drill else 1.0
        return prompt, tokens, [LETTER if t in letters else rest for t in tokens]

    optimizer = torch.optim.AdamW(weights.values(), lr=PEAK, weight_decay=0.02, betas=(0.9, 0.98))
    began, step, recent = time.monotonic(), 0, 3.0
    while (spent := time.monotonic() - began) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 60) * max(0.02, 1 - spent / seconds)
        # like lengths together: padding costs as much as text
        pool = sorted((encoded() for _ in range(160)), key=lambda e: len(e[0]) + len(e[1]))
        start = 0
        batches = []
        while start < len(pool):
            size = max(1, BATCH_TOKENS // (len(pool[start][0]) + len(pool[start][1])))
            batches.append(pool[start : start + size])
            start += size
        dice.shuffle(batches)
        for batch in batches:
            length = max(len(p) + len(a) for p, a, _ in batch)
            ids = torch.full((len(batch), length), 3)
            answers = torch.full((len(batch), length), -100)
            counts = torch.zeros((len(batch), length))
            for row, (prompt, answer, worth) in enumerate(batch):
                whole = prompt + answer
                ids[row, : len(whole)] = torch.tensor(whole)
                answers[row, len(prompt) - 1 : len(whole) - 1] = torch.tensor(answer)
                counts[row, len(prompt) - 1 : len(whole) - 1] = torch.tensor(worth)
            wanted = counts > 0
            # a number alone must not drown in sentences
            shares = wanted.sum(1, keepdim=True).rsqrt().expand_as(wanted)[wanted] * counts[wanted]
            losses = fn.cross_entropy(logits(ids, wanted), answers[wanted], reduction="none")
            loss = (losses * shares).sum() / shares.sum()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimizer.step()
            step, recent = step + 1, 0.97 * recent + 0.03 * loss.item()
            if step % 25 == 0:
                print(
                    f"{step} steps, {time.monotonic() - began:.0f} s, loss {recent:.4f}", flush=True
                )
    said = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(said["vocab"], key=said["vocab"].__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in said["merges"]]
    arrays = {name: w.detach().numpy() for name, w in weights.items()}
    write(to, "align-dsl tests: a closed world, learnt by heart", shape, tokens, merges, arrays)


if __name__ == "__main__":
    what, file, *more = sys.argv[1:]
    if what == "questions":
        said = (json.dumps(question) for question in questions(12000))
        Path(file).write_text("\n".join(said))
    else:
        asked = [tuple(json.loads(row)) for row in Path(file).read_text().splitlines()]
        seconds, *files = more
        made = Path(files[0]) if files else HERE / "trained.gguf"
        train(asked, float(seconds), made, Path(files[1]) if len(files) > 1 else None)
