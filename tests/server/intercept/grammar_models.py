"""How servers and packs of nodes read LoRA tags: small models, written from their sources.

They share no code with the extractors. What they load for a text, an extractor has to find at the
same strengths, or to refuse.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

Load = tuple[str, float, float]
"""A file, and how strongly it is applied to the denoiser and to the text encoder."""
Model = Callable[[str, Sequence[str]], Iterator[Load]]


def _numeric(text: str) -> bool:
    return re.match(r"^-?(\d*\.?\d+|\d+\.?\d*)$", text) is not None


def _drawn(text: str, chance: random.Random) -> str:
    """Impact Pack's choices: the innermost braces first, several at once in any order."""

    def one(match: re.Match[str]) -> str:
        options = match[1].split("|")
        head = options[0].split("$$")
        count, between = 1, " "
        if len(head) > 1 and (number := re.match(r"\d+", head[0])):
            count, options[0] = int(number[0]), head[-1]
            between = head[1] if len(head) == 3 else " "
        chance.shuffle(options)
        drawn = [re.sub(r"^\s*[0-9.]+::", "", option, count=1) for option in options[:count]]
        return between.join(drawn)

    for _ in range(20):
        text, made = re.subn(r"{([^{}]*?)}", one, text)
        if not made:
            break
    return text


def _without_comments(text: str) -> str:
    lines: list[str] = []
    joins = False
    for line in text.split("\n"):
        if line.lstrip().startswith("#"):
            joins = True
        elif lines and joins:
            lines[-1] += " " + line
            joins = False
        else:
            lines.append(line)
    return "\n".join(lines)


def impact(text: str, files: Sequence[str]) -> Iterator[Load]:
    text = _drawn(_without_comments(text), random.Random(len(text)))
    seen = set()
    for match in re.findall(r"<lora:([^>]+)>", text):
        name, *rest = match.strip(":").split(":")
        numbers = [float(item) for item in rest if _numeric(item)]
        if name in seen:
            continue
        seen.add(name)
        if "." + name.split(".")[-1] not in (".safetensors", ".pt", ".ckpt", ".bin", ".pth"):
            name += ".safetensors"
        path = next((one for one in files if one.endswith(name)), None)
        if path:
            model = numbers[0] if numbers else 1.0
            yield path, model, numbers[1] if len(numbers) > 1 else model


def _expanded(text: str) -> str:
    """Prompt Control's DEF without parameters, ten times over."""
    found = re.findall(r"\bDEF\((\w+)=([^()]*)\)", text)
    text = re.sub(r"\bDEF\(\w+=[^()]*\)", "", text)
    for _ in range(10):
        for name, value in found:
            text = re.sub(rf"\b{name}\b", lambda _, value=value: value.strip(), text)
    return text


def prompt_control(text: str, files: Sequence[str]) -> Iterator[Load]:
    number = r"([+-]?(?:\d*\.\d*|\d+))"
    text = _expanded(text)
    for match in re.finditer(rf"<lora:([^:<>]+):{number}(?::{number})?>", text):
        path = _by_prompt_control(match[1], files)
        if path and match[2] != ".":
            model = float(match[2])
            yield path, model, float(match[3]) if match[3] else model
    for match in re.finditer(r"<loractl:([^:<>]+):([^<>:]+)(?::[^<>]+)?>", text):
        path = _by_prompt_control(match[1], files)
        first = re.match(number, match[2])
        if path and first and first[1] != ".":
            yield path, float(first[1]), float(first[1])


def _by_prompt_control(name: str, files: Sequence[str]) -> str | None:
    if name in files:
        return name
    for wanted in (name, name.replace(" ", "_")):
        for path in files:
            bare = PurePosixPath(path).with_suffix("")
            if wanted in (bare.name, str(bare)):
                return path
    similar = [path for path in files if all(part in path for part in name.split())]
    return similar[0] if len(similar) == 1 else None


def tag_loader(text: str, files: Sequence[str]) -> Iterator[Load]:
    for found in re.findall(r"\<[0-9a-zA-Z\:\_\-\.\s\/\(\)\\\\]+\>", text):
        kind, *rest = found[1:-1].split(":")
        if kind != "lora" or not rest or not rest[0]:
            continue
        try:
            model = float(rest[1]) if len(rest) > 1 and rest[1] else 0.0
            clip = float(rest[2]) if len(rest) > 2 and rest[2] else model
        except ValueError:
            continue
        for path in files:
            if PurePosixPath(path).name.startswith(rest[0]) or path.startswith(rest[0]):
                yield path, model, clip
                break


def lora_manager(text: str, files: Sequence[str]) -> Iterator[Load]:
    pattern = r"<lora:([^:>]+):([^:>]+)(?::([^:>]+))?>"
    loads = []
    for name, first, second in re.findall(pattern, text, re.IGNORECASE):
        model = float(first)  # anything else breaks the node
        path = _by_lora_manager(name, files)
        if path:
            loads.append((path, model, float(second) if second else model))
    yield from loads


def _by_lora_manager(name: str, files: Sequence[str]) -> str | None:
    wanted = re.sub(r"(?i)\.(safetensors|ckpt|pt|bin)$", "", name.replace("\\", "/"))
    fallback = None
    for path in random.Random(len(name)).sample(list(files), len(files)):  # in any order
        bare = str(PurePosixPath(path).with_suffix(""))
        folder, stem = os.path.split(bare)
        if wanted in (stem, bare):
            return path
        if "/" in wanted and stem == PurePosixPath(wanted).name and (fallback is None or folder):
            fallback = path
    return fallback


def _bare(path: str) -> str:
    return path.rpartition(".")[0] or path


def rgthree(text: str, files: Sequence[str]) -> Iterator[Load]:
    for name, number in re.findall(r"<lora:([^:>]*?)(?::(-?\d*(?:\.\d*)?))?>", text):
        strength = float(number) if number else 1.0
        path = _by_rgthree(name, files)
        if path and strength:
            yield path, strength, strength


def _by_rgthree(name: str, files: Sequence[str]) -> str | None:
    bare = [_bare(path) for path in files]
    last = [PurePosixPath(path).name for path in files]
    stems = [_bare(one) for one in last]
    short = _bare(name)
    for wanted, known in (
        (name, list(files)),
        (name, bare),
        (short, bare),
        (name, last),
        (PurePosixPath(name).name, last),
        (name, stems),
        (_bare(PurePosixPath(name).name), stems),
    ):
        if wanted in known:
            return files[known.index(wanted)]
    return next((path for path in files if name in path), None)


def coziness(text: str, files: Sequence[str]) -> Iterator[Load]:
    """Every line is a LoRA, with the marks of a tag or without."""
    known = {PurePosixPath(path).stem: path for path in files}
    loads = []
    for line in text.splitlines():
        line = re.sub(r"\s*#.*\Z", "", line.strip())
        line = re.sub(r"\A<(lora|lyco):", "", line.removesuffix(">"))
        if not line:
            continue
        name, *numbers = line.rsplit(":", 2)
        forces = [float(one) for one in numbers] or [1.0]
        path = known.get(name, name)
        if path not in files:
            raise ValueError(path)
        loads.append((path, forces[0], forces[-1]))
    yield from loads


def infotext(text: str, files: Sequence[str]) -> Iterator[Load]:
    """A1111's and Forge's fields behind the prompts, of which it decodes the quoted ones."""
    *_, last = text.strip().split("\n")
    fields = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    for key, value in fields if len(fields) >= 3 else ():
        if value[:1] == '"' == value[-1:]:
            with suppress(ValueError):
                value = json.loads(value)
        if key == "Hires prompt":
            yield from forge(value, files)


def _web_ui_tags(text: str) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    for kind, arguments in re.findall(r"<(\w+):([^>]+)>", text):
        if kind not in ("lora", "lyco"):
            continue
        named, plain = {}, []
        for item in arguments.split(":"):
            parts = item.split("=", 2)
            if len(parts) == 2:
                named[parts[0]] = parts[1]
            else:
                plain.append(item)
        if plain:
            yield plain[0], plain[1:], named


def forge(text: str, files: Sequence[str]) -> Iterator[Load]:
    text = _drawn(text, random.Random(len(text)))
    known = {PurePosixPath(path).stem: path for path in files}  # the last in the walk
    for name, plain, named in _web_ui_tags(text):
        encoder = float(named.get("te", plain[0] if plain else 1.0))
        denoiser = float(named.get("unet", plain[1] if len(plain) > 1 else encoder))
        if name in known:
            yield known[name], denoiser, encoder


def sdnext(text: str, files: Sequence[str]) -> Iterator[Load]:
    known: dict[str, str] = {}
    for path in files:
        bare = str(PurePosixPath(path).with_suffix(""))
        stem = PurePosixPath(bare).name if "." not in bare else PurePosixPath(path).stem
        known[stem.replace(".", "_")] = path
        known[bare] = path
        known.setdefault(stem, path)
    for name, plain, named in _web_ui_tags(text):
        encoder = float(named.get("te", plain[0] if plain else 1.0))
        if name in known:
            yield known[name], float(named.get("unet", encoder)), encoder


def sd_cpp(text: str, files: Sequence[str]) -> Iterator[Load]:
    sums: dict[tuple[bool, str], float] = {}
    for name, arguments in re.findall(r"<lora:([^:>]+):([^>]+)>", text):
        number = re.match(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", arguments)
        plain = name.removeprefix("|high_noise|")
        endings = ("", ".gguf", ".safetensors", ".pt", ".ckpt")
        path = next((plain + end for end in endings if plain + end in files), None)
        if number and path:
            key = (plain != name, path)
            sums[key] = sums.get(key, 0.0) + float(number[0])
    yield from ((path, total, total) for (_, path), total in sums.items())


def localai_video(text: str, files: Sequence[str]) -> Iterator[Load]:
    """LocalAI's own build of stable-diffusion.cpp, whatever model of a video a LoRA is for."""
    for name, arguments in re.findall(r"<lora:([^:>]+):([^>]+)>", text.partition("\0")[0]):
        number = re.match(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", arguments)
        path = _by_localai(name.removeprefix("|high_noise|"), files)
        if number and path:
            yield path, float(number[0]), float(number[0])


def _by_localai(name: str, files: Sequence[str]) -> str | None:
    endings = (".safetensors", ".ckpt", ".pt", ".gguf")
    top = {one.rpartition(".")[0]: one for one in files if "/" not in one and one.endswith(endings)}
    if name in top:
        return top[name]
    for stem in sorted(top):
        if stem.lower() == name.lower():
            return top[stem]
    path = os.path.normpath(name)
    return next((path + end for end in ("", ".pt", ".safetensors") if path + end in files), None)


def localai(text: str, files: Sequence[str]) -> Iterator[Load]:
    """The negative half of a prompt is read and loads nothing."""
    yield from localai_video(text.split("|")[0], files)


def _filled(text: str, fill: Callable[[str], str]) -> str:
    """What stands in outermost brackets replaced; one that nobody closes stays."""
    out, depth, begin, at = "", 0, 0, 0
    for place, letter in enumerate(text):
        if letter == "<":
            if not depth:
                begin = place
            depth += 1
        elif letter == ">" and depth:
            depth -= 1
            if not depth:
                out += text[at:begin] + fill(text[begin + 1 : place])
                at = place + 1
    return out + text[at:]


def _number_of_net(text: str) -> float:
    """double.Parse: blanks around it, and commas that it passes over."""
    return float(text.strip().replace(",", ""))


def swarmui(text: str, files: Sequence[str]) -> Iterator[Load]:
    """SwarmUI: three rounds of tags, each of which may leave tags to the next."""
    loads: list[Load] = []

    def clean(name: str) -> str:
        return name.removesuffix(".safetensors").lower().translate({32: None, 91: None, 93: None})

    def best(name: str) -> str | None:
        found = [one for one in files if clean(one) == clean(name)]
        holding = sorted((one for one in files if clean(name) in clean(one)), key=len)
        return next(iter([*found, *holding]), None)

    def rounds(value: str) -> str:
        for kinds in (("comment",), ("random", "setvar"), ("lora",)):
            value = _filled(value, lambda tag, kinds=kinds: one(tag, kinds))  # type: ignore[misc]
        return value

    def one(tag: str, kinds: Sequence[str]) -> str:
        kind, _, data = tag.partition(":")
        kind = kind.lower()
        if kind not in kinds:
            return f"<{tag}>"
        if kind == "comment":
            return ""
        data = rounds(data)
        if kind != "lora":
            return data.split("|" if "|" in data else ",")[0].strip()
        name, *numbers = data.lower().replace("\\", "/").split(":", 2)
        weights = [_number_of_net(number) for number in numbers]
        path = best(name)
        if path is not None:
            loads.append((path, *(weights * 2 + [1.0, 1.0])[:2]) if weights else (path, 1.0, 1.0))
        return ""

    rounds(text.replace("\0", "").replace("\a", ""))
    yield from loads


NODES: Mapping[str, tuple[str, str, Model]] = {
    "Impact Pack": ("ImpactWildcardEncode", "wildcard_text", impact),
    "Impact Pack's detailer": ("FaceDetailer", "wildcard", impact),
    "Prompt Control": ("PCLazyLoraLoader", "text", prompt_control),
    "Prompt Control's hooks": ("PCLoraHooksFromText", "text", prompt_control),
    "LoraTagLoader": ("LoraTagLoader", "text", tag_loader),
    "LoRA Manager": ("LoRA Text Loader (LoraManager)", "lora_syntax", lora_manager),
    "Coziness": ("MultiLoraLoader-70bf3d77", "text", coziness),
    "rgthree": ("Power Prompt (rgthree)", "prompt", rgthree),
    "unknown, as rgthree": ("Unheard Of", "prompt", rgthree),
    "unknown, as Impact Pack": ("Unheard Of", "text", impact),
    "unknown, as LoRA Manager": ("Unheard Of", "text", lora_manager),
    "unknown, as LoraTagLoader": ("Unheard Of", "text", tag_loader),
}
"""Class and input of a node, and how its pack reads it."""

PROMPTS: Mapping[str, tuple[str, Model]] = {
    "Forge": ("a1111", forge),
    "SD.Next": ("a1111", sdnext),
    "stable-diffusion.cpp": ("stable_diffusion_cpp", sd_cpp),
    "SwarmUI": ("swarmui", swarmui),
}
"""The extractor of a server, and how it reads the prompt of a request."""
