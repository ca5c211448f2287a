"""What image servers apply at the same time, and how strongly: small models of their sources.

Each gives, for one request, every set of LoRAs that the server has active at some moment. They
share no code with the extractors. Whatever set they name, the gate has to judge exactly that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from loragate_server.intercept.request import HttpRequest

Applied = tuple[str, float, float]
"""A LoRA by its name, its strength on the denoiser, and that on the text encoder."""

_TAG = re.compile(r"<(\w+):([^>]+)>")


def _body(request: HttpRequest) -> Any:
    return json.loads(request.body)


def _tags(prompt: str) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    for match in _TAG.finditer(prompt):
        if match[1] in ("lora", "lyco"):
            items = match[2].split(":")
            named = dict(one.split("=", 1) for one in items if "=" in one)
            yield items[0], [one for one in items[1:] if "=" not in one], named


def _web_ui(prompt: str) -> list[Applied]:
    """A1111's and Forge's strengths of the tags of one prompt; files are known by bare names."""
    applied = []
    for name, numbers, named in _tags(prompt):
        text_encoder = float(named.get("te", numbers[0] if numbers else 1.0))
        denoiser = float(named.get("unet", numbers[1] if len(numbers) > 1 else text_encoder))
        if "/" not in name and not name.endswith(".safetensors"):
            applied.append((name, denoiser, text_encoder))
    return applied


def forge(request: HttpRequest) -> Iterator[list[Applied]]:
    body = _body(request)
    yield _web_ui(body.get("prompt", ""))
    if body.get("enable_hr") and body.get("hr_prompt"):
        yield _web_ui(body["hr_prompt"])


def a1111(request: HttpRequest) -> Iterator[list[Applied]]:
    """One object per name, so each name has the strength that came last; and the option."""
    settings = _body(request).get("override_settings") or {}
    for applied in forge(request):
        option = settings.get("sd_lora")
        if option and option not in [name for name, _, _ in applied]:
            number = float(settings.get("extra_networks_default_multiplier", 1.0))
            applied.append((option, number, number))
        last = {name: (denoiser, encoder) for name, denoiser, encoder in applied}
        yield [(name, *last[name]) for name, _, _ in applied]


def a1111_with_extension(request: HttpRequest) -> Iterator[list[Applied]]:
    """An extension that draws a second picture from a prompt of its own."""
    yield from a1111(request)
    yield _web_ui(_body(request).get("detail_prompt", ""))


def both_prompts(request: HttpRequest) -> Iterator[list[Applied]]:
    body = _body(request)
    yield _web_ui(body.get("prompt", "") + body.get("negative_prompt", ""))


def sdnext(request: HttpRequest) -> Iterator[list[Applied]]:
    body = _body(request)
    settings = body.get("override_settings") or {}
    default = float(settings.get("extra_networks_default_multiplier", 1.0))
    applied = []
    for name, numbers, named in _tags(body.get("prompt", "")):
        encoder = float(named.get("te", numbers[0] if numbers else default))
        applied.append((name, float(named.get("unet", encoder)), encoder))
    yield applied


def _sd_cpp_lists(body: Any, *, of_body: bool) -> tuple[list[Applied], list[Applied]]:
    """The LoRAs of the model for little noise, and of that for much."""
    block = re.search("<sd_cpp_extra_args>(.*?)</sd_cpp_extra_args>", body["prompt"])
    listed = json.loads(block[1]).get("lora", []) if block else []
    if of_body and isinstance(body.get("lora"), list):
        listed = body["lora"]
    both: tuple[list[Applied], list[Applied]] = ([], [])
    for one in listed:
        number = float(one.get("multiplier", 1.0))
        both[one.get("is_high_noise", False)].append((one["path"], number, number))
    return both


def sd_cpp(request: HttpRequest) -> Iterator[list[Applied]]:
    """A file may hold tensors for the other model, too."""
    low, high = _sd_cpp_lists(_body(request), of_body=True)
    yield from (low, high, low + high)


def sd_cpp_without_a_list(request: HttpRequest) -> Iterator[list[Applied]]:
    low, high = _sd_cpp_lists(_body(request), of_body=False)
    yield from (low, high, low + high)


def sd_cpp_with_tags(request: HttpRequest) -> Iterator[list[Applied]]:
    """A build that hands the folder of LoRAs on."""
    body = _body(request)
    low, high = _sd_cpp_lists(body, of_body=True)
    text = re.sub("<sd_cpp_extra_args>(.*?)</sd_cpp_extra_args>", "", body["prompt"])
    for match in re.finditer(r"<lora:([^:>]+):([^>]+)>", text):
        name = match[1].removeprefix("|high_noise|")
        (low if name == match[1] else high).append((name, float(match[2]), float(match[2])))
    yield from (low, high, low + high)


def localai(request: HttpRequest) -> Iterator[list[Applied]]:
    """Every text is a picture of its own; of one file the numbers are added up."""
    given = _body(request).get("prompt")
    for text in given if isinstance(given, list) else [given]:
        yield _of_go(text.split("|")[0])


def localai_merging(request: HttpRequest) -> Iterator[list[Applied]]:
    """A server that takes the LoRAs of the negative half as well."""
    given = _body(request).get("prompt")
    for text in given if isinstance(given, list) else [given]:
        yield [one for half in text.split("|")[:2] for one in _of_go(half)]


def _of_go(text: str) -> list[Applied]:
    sums: dict[str, float] = {}
    for name, number in re.findall(r"<lora:([^:>]+):([-+.0-9]+)[^>]*>", text):
        sums[name] = sums.get(name, 0.0) + float(number)
    return [(name, number, number) for name, number in sums.items()]


def _lora_list(value: Any) -> list[Applied]:
    applied = []
    for one in value if isinstance(value, list) else [value]:
        name = one.get("name") or one.get("lora_name") or one.get("adapter")
        path = one.get("local_path") or one.get("path") or one.get("lora_path")
        scale = one.get("scale")
        scale = one.get("lora_scale") if scale is None else scale
        if name and path:
            number = 1.0 if scale is None else float(scale)
            applied.append((path, number, number))
    return applied


def vllm_omni(request: HttpRequest) -> Iterator[list[Applied]]:
    if (lora := _body(request).get("lora")) is not None:
        yield _lora_list(lora)


def vllm_omni_extra(request: HttpRequest) -> Iterator[list[Applied]]:
    body = _body(request)
    lora = {**body, **(body.get("extra_body") or {})}.get("lora")
    if lora is not None:
        yield _lora_list(lora)


def sglang(request: HttpRequest) -> Iterator[list[Applied]]:
    body = _body(request)
    nicknames = body["lora_nickname"]
    names = nicknames if isinstance(nicknames, list) else [nicknames]

    def spread(value: Any) -> list[Any]:
        return value if isinstance(value, list) else [value] * len(names)

    paths = spread(body["lora_path"])
    kept = dict(zip(names, paths, strict=True))  # one file per nickname: the last one
    strengths = spread(body.get("strength", 1.0))
    targets = spread(body.get("target", "all"))
    for transformer in ("transformer", "transformer_2", "critic"):
        yield [
            (kept[name], float(number), float(number))
            for name, number, target in zip(names, strengths, targets, strict=True)
            if target in ("all", transformer)
        ]


def _cog(*inputs: tuple[str, str]) -> Callable[[HttpRequest], Iterator[list[Applied]]]:
    """A model that has these inputs for LoRAs and their strengths, and ignores all others."""

    def model(request: HttpRequest) -> Iterator[list[Applied]]:
        given = _body(request)["input"]
        applied = []
        for name, scale_name in inputs:
            paths = given.get(name) or []
            paths = [paths] if isinstance(paths, str) else paths
            scales = given.get(scale_name)
            scales = scales if isinstance(scales, list) else [scales] * len(paths)
            for path, scale in zip(paths, scales, strict=True):
                number = 1.0 if scale is None else float(scale)
                applied.append((path, number, number))
        yield applied

    return model


def _kserve(*path: str | int) -> Callable[[HttpRequest], Iterator[list[Applied]]]:
    """A model that reads its LoRA from one place of the request."""

    def model(request: HttpRequest) -> Iterator[list[Applied]]:
        holder = _body(request)
        for part in path:
            holder = holder[part]
        if "lora_path" in holder:
            number = float(holder.get("lora_scale", 1.0))
            yield [(holder["lora_path"], number, number)]

    return model


def kserve_as_trained(request: HttpRequest) -> Iterator[list[Applied]]:
    """A model that reads no strength."""
    if path := _body(request).get("parameters", {}).get("adapter_id"):
        yield [(path, 1.0, 1.0)]


def kserve_list(request: HttpRequest) -> Iterator[list[Applied]]:
    paths = _body(request).get("parameters", {}).get("loras", [])
    yield [(path, 1.0, 1.0) for path in paths]


def declarative(request: HttpRequest) -> Iterator[list[Applied]]:
    """A server that reads one list at the top, and nothing deeper."""
    yield [
        (one["lora"], float(one.get("scale", 1.0)), float(one.get("scale", 1.0)))
        for one in _body(request).get("loras", [])
    ]


Model = Callable[[HttpRequest], Iterator[Sequence[Applied]]]

SETS: Mapping[str, Sequence[Model]] = {
    "a1111": (a1111, forge, sdnext, both_prompts, a1111_with_extension),
    "stable_diffusion_cpp": (sd_cpp, sd_cpp_without_a_list, sd_cpp_with_tags),
    "localai": (localai, localai_merging),
    "vllm_omni": (vllm_omni, vllm_omni_extra),
    "sglang": (sglang,),
    "cog": (
        _cog(("lora_weights", "lora_scale"), ("extra_lora", "extra_lora_scale")),
        _cog(("lora_weights", "lora_scale")),
        _cog(("hf_loras", "lora_scales")),
        _cog(("zz_lora", "zz_lora_scale")),
        _cog(("zz_lora", "none")),
        _cog(("lora_weights", "lora_scale"), ("zz_lora", "zz_lora_scale")),
    ),
    "kserve": (
        _kserve("parameters"),
        _kserve("inputs", 0, "parameters"),
        _kserve("instances", 0),
        _kserve("instances", 1),
        kserve_as_trained,
        kserve_list,
    ),
    "declarative": (declarative,),
}
